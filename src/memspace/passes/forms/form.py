"""The interface of per-example gradients of one block, whatever their form.

A form rotated into eigenbases is a form again, so that EKFAC's eigenvalues are the squares of a rotated form.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

from torch import Tensor

from memspace.passes.forms.bases import Bases

__all__ = ["Form", "Moments"]


@dataclass(frozen=True)
class Moments:
    """Sums for Kronecker factors: F of the block is about (Σg / n) ⊗ (Σa / Σ positions).

    Factors are 1-d where only a diagonal is stored, and 3-d with one per group of rows.

    Args:
        a: (in, in), summed over positions; of a block without a product form its own second moment.
        g: (out, out), summed over examples; None for a block without a product form.
        positions: number of positions.
    """

    a: Tensor
    g: Tensor | None
    positions: float


class Form(ABC):
    """Gradients G_kb (out, in) of one block for K cotangents and B examples."""

    @abstractmethod
    def gradients(self) -> Tensor:
        """Return the gradients themselves.

        Returns:
            (K, B, out, in).
        """

    @abstractmethod
    def squared_norms(self) -> Tensor:
        """Compute squared norms ‖G_kb‖².

        Returns:
            (K, B).
        """

    @abstractmethod
    def squares(self) -> Tensor:
        """Sum elementwise squares, Σ_kb G_kb².

        Returns:
            (out, in), float64.
        """

    @abstractmethod
    def rotate(self, bases: Bases) -> Form:
        """Turn the gradients into bases, gᵀ G a.

        Args:
            bases: of the block.

        Returns:
            The form of the rotated gradients.
        """

    @abstractmethod
    def rotation(self) -> int:
        """Count the multiplications that :meth:`rotate` costs.

        Returns:
            A number per example and cotangent.
        """

    @abstractmethod
    def pairs(self, weights: Tensor) -> Tensor:
        """Compute weighted inner products within examples, Σ_oi w_doi G_kboi G_lboi.

        Args:
            weights: w (D, out, in).

        Returns:
            (D, B, K, K).
        """

    @abstractmethod
    def scores(self, queries: Tensor) -> Tensor:
        """Compute inner products with many queries, ⟨G_kb, q⟩.

        Args:
            queries: (Q, out, in).

        Returns:
            (K, B, Q).
        """

    @abstractmethod
    def push(self, v: Tensor) -> Tensor:
        """Compute inner products with few vectors, ⟨G_kb, v⟩, at less cost than :meth:`scores`.

        Args:
            v: (Q, out, in).

        Returns:
            (K, B, Q).
        """

    @abstractmethod
    def pull(self, u: Tensor) -> Tensor:
        """Sum the gradients with weights, Σ_kb u_kbq G_kb.

        Args:
            u: (K, B, Q).

        Returns:
            (Q, out, in).
        """

    def settled(self, vectors: int) -> Form:
        """Choose the form in which :meth:`push` and :meth:`pull` cost least.

        Args:
            vectors: at a time.

        Returns:
            This form, or the same gradients in another.
        """
        return self

    @abstractmethod
    def moments(self) -> Moments:
        """Sum second moments for Kronecker factors.

        Returns:
            The sums over this batch.
        """
