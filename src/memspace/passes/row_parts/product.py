"""Rows stored as the factors of Σ_t g_t a_tᵀ."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from memspace.passes.forms.sums import slices
from memspace.passes.row_parts.part import RowPart, add_panels, gathered

__all__ = ["ProductPart"]


class ProductPart(RowPart):
    """Factors ``a`` (n, T, in) and ``g`` (R, T, out): where T is 1 an inner product costs in + out, not in·out."""

    @property
    def _single(self) -> bool:
        return self.a.shape[1] == 1

    def formed(self) -> Tensor:
        """See :class:`RowPart`."""
        return torch.matmul(self.g.double().transpose(-1, -2), self.a[self.example].double()).flatten(1)

    def norms(self) -> Tensor:
        """See :class:`RowPart`."""
        g, a = self.g.double(), self.a.double()
        if self._single:
            return g.square().sum((1, 2)) * a.square().sum((1, 2))[self.example]
        out = g.new_empty(len(g))
        for s in slices(len(g), self.block.size):
            out[s] = torch.matmul(g[s].transpose(-1, -2), a[self.example[s]]).square().sum((1, 2))
        return out

    def own(self, rows: int) -> Tensor:
        """See :class:`RowPart`."""
        g, a = self.g.reshape(-1, rows, *self.g.shape[1:]).double(), self.a.double()
        if self._single:
            return (g[:, :, 0] @ g[:, :, 0].transpose(-1, -2)) * a.square().sum((1, 2))[:, None, None]
        out = g.new_empty(len(g), rows, rows)
        for s in slices(len(g), rows * self.block.size):
            formed = torch.matmul(g[s].transpose(-1, -2), a[s].unsqueeze(1)).flatten(2)
            out[s] = formed @ formed.transpose(-1, -2)
        return out

    def add_dot(self, total: Tensor, other: RowPart) -> None:
        """See :class:`RowPart`."""
        if not isinstance(other, ProductPart):
            super().add_dot(total, other)
            return
        g, a = self.g.double(), self.a
        if self._single and other._single:
            h, inner = other.g.double(), a[:, 0].double() @ other.a[:, 0].double().t()
            for s in slices(len(g), len(h)):
                piece = g[s, 0] @ h[:, 0].t()
                piece *= inner[self.example[s]][:, other.example]
                total[s] += piece
            return
        right = other.formed()
        for s in slices(len(g), self.block.size):
            left = torch.matmul(g[s].transpose(-1, -2), a[self.example[s]].double()).flatten(1)
            total[s] += left @ right.t()

    def times(self, v: Tensor) -> Tensor:
        """See :class:`RowPart`."""
        g, moved = self.g.double(), self.a.double() @ v.t()
        out = g.new_empty(len(g))
        for s in slices(len(g), g.shape[1] * g.shape[2]):
            out[s] = (g[s] * moved[self.example[s]]).sum((1, 2))
        return out

    def transposed_times(self, w: Tensor) -> Tensor:
        """See :class:`RowPart`."""
        by_example = gathered(self.example, self.g.double() * w[:, None, None], len(self.a))
        return torch.einsum("nto,nti->oi", by_example, self.a.double())

    def add_times_stack(self, total: Tensor, v: Tensor) -> None:
        """See :class:`RowPart`."""
        g, a = self.g.double(), self.a.double()
        for vs in slices(len(v), len(a) * a.shape[1] * self.block.shape[0]):
            moved = torch.einsum("nti,koi->nkto", a, v[vs]).flatten(2)  # (n, k, T·out)
            for s in slices(len(g), moved[0].numel()):
                total[vs, s] += torch.matmul(moved[self.example[s]], g[s].flatten(1).unsqueeze(-1)).squeeze(-1).t()

    def transposed_times_stack(self, w: Tensor) -> Iterator[tuple[slice, Tensor]]:
        """See :class:`RowPart`."""
        g = self.g.double()
        for s in slices(len(w), g.numel()):
            by_example = gathered(self.example, w[s].t()[:, :, None, None] * g.unsqueeze(1), len(self.a))
            yield s, torch.einsum("nkto,nti->koi", by_example, self.a.double()).flatten(1)

    def squares(self) -> Tensor:
        """See :class:`RowPart`; the square of one outer product is the outer product of squares."""
        g = self.g.double()
        if self._single:
            by_example = gathered(self.example, g[:, 0].square(), len(self.a))
            return (by_example.t() @ self.a[:, 0].double().square()).flatten()
        return super().squares()

    def add_gram(self, total: Tensor, edges: Sequence[tuple[int, int]]) -> None:
        """See :class:`RowPart`."""
        g = self.g
        if self._single:
            a = self.a[:, 0] if len(self.example) == len(self.a) else self.a[self.example, 0]
            for i, j in edges:
                total[i:j, i:].add_((g[i:j, 0] @ g[i:, 0].t()).mul_(a[i:j] @ a[i:].t()))
            return
        a = self.a[self.example]
        for s in slices(g.shape[-1], len(g) * a.shape[-1]):  # some outputs at a time
            add_panels(total, torch.matmul(g[..., s].transpose(-1, -2), a).flatten(1), edges)
