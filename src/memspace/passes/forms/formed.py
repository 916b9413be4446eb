"""Gradients as formed rows: norms, parameters without a product form."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from memspace.passes.forms.bases import Bases
from memspace.passes.forms.form import Form, Moments
from memspace.passes.forms.sums import second_moment

__all__ = ["DENSE_LIMIT", "FormedForm"]

DENSE_LIMIT = 2048  # formed blocks up to this size get a dense second moment, larger ones less


@dataclass(frozen=True)
class FormedForm(Form):
    """Gradients of a block of shape (1, p) as rows.

    Args:
        rows: (K, B, p).
    """

    rows: Tensor

    def gradients(self) -> Tensor:
        """See :class:`Form`."""
        return self.rows.unsqueeze(2)

    def squared_norms(self) -> Tensor:
        """See :class:`Form`."""
        return self.rows.square().sum(-1)

    def squares(self) -> Tensor:
        """See :class:`Form`."""
        return self.rows.square().sum((0, 1)).double().unsqueeze(0)

    def rotate(self, bases: Bases) -> FormedForm:
        """See :class:`Form`."""
        return self if bases.a is None else FormedForm(self.rows @ bases.a.to(self.rows.dtype))

    def rotation(self) -> int:
        """See :class:`Form`."""
        return self.rows.shape[-1] ** 2

    def pairs(self, weights: Tensor) -> Tensor:
        """See :class:`Form`."""
        rows = self.rows.transpose(0, 1)
        return torch.stack([(rows * w[0]) @ rows.transpose(1, 2) for w in weights])

    def scores(self, queries: Tensor) -> Tensor:
        """See :class:`Form`."""
        return self.rows @ queries[:, 0].t()

    def push(self, v: Tensor) -> Tensor:
        """See :class:`Form`."""
        return self.rows @ v.flatten(1).t()

    def pull(self, u: Tensor) -> Tensor:
        """See :class:`Form`."""
        return (u.flatten(0, 1).t() @ self.rows.flatten(0, 1)).unsqueeze(1)

    def moments(self) -> Moments:
        """Sum the block's own second moment."""
        rows = self.rows.flatten(0, 1)
        return Moments(
            second_moment(rows.unsqueeze(0)) if rows.shape[1] <= DENSE_LIMIT else rows.square().sum(0), None, 0
        )
