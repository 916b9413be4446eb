"""Orthonormal bases of a block, in which its metric is diagonal or nearly so."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

__all__ = ["IDENTITY", "Bases"]


@dataclass(frozen=True)
class Bases:
    """Orthonormal bases of one block, in columns; None stands for the identity.

    Args:
        a: (in, in), or (groups, in, in) with one per group of rows.
        g: (out, out), or (groups, out / groups, out / groups).
    """

    a: Tensor | None
    g: Tensor | None

    def converted(self, dtype: torch.dtype) -> Bases:
        """Convert the bases once to the dtype of the signals; those in a file stay as they are.

        Args:
            dtype: of the signals.

        Returns:
            The converted bases.
        """

        def one(u: Tensor | None) -> Tensor | None:
            return u if u is None or u.untyped_storage().is_shared() else u.to(dtype)

        return Bases(one(self.a), one(self.g))

    def rotate(self, gradients: Tensor) -> Tensor:
        """Rotate gradients into the bases, gᵀ G a.

        Args:
            gradients: (..., out, in).

        Returns:
            (..., out, in).
        """
        return self._turned(gradients, self.a, None if self.g is None else self.g.mT)

    def back(self, gradients: Tensor) -> Tensor:
        """Turn gradients back, the inverse of :meth:`rotate`.

        Args:
            gradients: (..., out, in).

        Returns:
            (..., out, in).
        """
        return self._turned(gradients, None if self.a is None else self.a.mT, self.g)

    def squared(self) -> Bases:
        """Return the bases' squared entries, by which :meth:`back` maps eigenvalues to the diagonal of the matrix.

        Returns:
            Bases in float64.
        """
        return Bases(*(None if u is None else u.double().square() for u in (self.a, self.g)))

    @staticmethod
    def _turned(gradients: Tensor, right: Tensor | None, left: Tensor | None) -> Tensor:
        groups = next((len(u) for u in (right, left) if u is not None and u.dim() == 3), 0)
        if groups:
            gradients = gradients.reshape(*gradients.shape[:-2], groups, -1, gradients.shape[-1])
        if right is not None:
            gradients = gradients @ right.to(gradients.dtype)
        if left is not None:
            gradients = left.to(gradients.dtype) @ gradients
        return gradients.flatten(-3, -2) if groups else gradients


IDENTITY = Bases(None, None)


IDENTITY = Bases(None, None)
