"""Per-example gradients of a grouped convolution: an independent matrix per group."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from memspace.passes.forms.bases import Bases
from memspace.passes.forms.form import Moments
from memspace.passes.forms.whole import WholeForm

__all__ = ["GroupForm"]


@dataclass(frozen=True)
class GroupForm(WholeForm):
    """Gradients of G groups, (out/G, in) each, joined to ``matrices`` (K, B, out, in); bases are one pair a group.

    Args:
        groups: G.
    """

    groups: int = 1

    def rotate(self, bases: Bases) -> GroupForm:
        """See :class:`Form`."""
        return GroupForm(bases.rotate(self.matrices), groups=self.groups)

    def rotation(self) -> int:
        """See :class:`Form`."""
        out, width = self.matrices.shape[-2:]
        return out * width * (width + out // self.groups)

    def moments(self) -> Moments:
        """Sum GᵀG (G, in, in) and GGᵀ (G, out/G, out/G) of every group's gradients (Gupta et al. 2018).

        A depthwise group has one row: its Σ GᵀG is the second moment of its gradient itself, hence exact within a
        group.
        """
        count, width = self.matrices.shape[0] * self.matrices.shape[1], self.matrices.shape[-1]
        g = self.matrices.reshape(count, self.groups, -1, width).transpose(0, 1)  # (G, K·B, out/G, in)
        rows = g.flatten(1, 2)
        columns = g.transpose(2, 3).flatten(1, 2)
        right, left = rows.mT @ rows, columns.mT @ columns
        return Moments(right, left, float(torch.diagonal(right, dim1=1, dim2=2).double().sum()))
