"""Per-example gradients of a block as matrices, where it has no product form: exact, but larger."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from memspace.passes.forms.bases import Bases
from memspace.passes.forms.form import Form, Moments
from memspace.passes.forms.sums import second_moment

__all__ = ["WholeForm"]


@dataclass(frozen=True)
class WholeForm(Form):
    """Gradients of a block of any shape as matrices.

    Args:
        matrices: (K, B, out, in).
        diagonal: the side ("in" or "out") of which only the second moment's diagonal is stored: that of tokens.
    """

    matrices: Tensor
    diagonal: str = ""

    def gradients(self) -> Tensor:
        """See :class:`Form`."""
        return self.matrices

    def squared_norms(self) -> Tensor:
        """See :class:`Form`."""
        return self.matrices.square().sum((-1, -2))

    def squares(self) -> Tensor:
        """See :class:`Form`."""
        return self.matrices.square().sum((0, 1)).double()

    def rotate(self, bases: Bases) -> WholeForm:
        """See :class:`Form`."""
        return WholeForm(bases.rotate(self.matrices), self.diagonal)

    def rotation(self) -> int:
        """See :class:`Form`."""
        out, width = self.matrices.shape[-2:]
        return out * width * ((self.diagonal != "in") * width + (self.diagonal != "out") * out)

    def pairs(self, weights: Tensor) -> Tensor:
        """See :class:`Form`."""
        rows = self.matrices.flatten(2).transpose(0, 1)
        return torch.stack([(rows * w.flatten()) @ rows.transpose(1, 2) for w in weights])

    def scores(self, queries: Tensor) -> Tensor:
        """See :class:`Form`."""
        return self.matrices.flatten(2) @ queries.flatten(1).t()

    def push(self, v: Tensor) -> Tensor:
        """See :class:`Form`."""
        return self.scores(v)

    def pull(self, u: Tensor) -> Tensor:
        """See :class:`Form`."""
        flat = u.flatten(0, 1).t() @ self.matrices.flatten(0, 1).flatten(1)
        return flat.reshape(-1, *self.matrices.shape[-2:])

    def moments(self) -> Moments:
        """Sum GᵀG and GGᵀ, scaled so that their Kronecker product has the block's trace (Gupta et al. 2018)."""
        g = self.matrices.flatten(0, 1)  # (K·B, out, in)
        left = g.square().sum((0, 2)) if self.diagonal == "out" else second_moment(g.transpose(-1, -2))
        right = g.square().sum((0, 1)) if self.diagonal == "in" else second_moment(g)
        return Moments(right, left, float(g.double().square().sum()))
