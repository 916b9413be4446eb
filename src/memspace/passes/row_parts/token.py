"""Rows of an embedding: cotangents by position, and the tokens at these positions."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from memspace.passes.forms.sums import slices
from memspace.passes.row_parts.part import RowPart, add_panels, gathered

__all__ = ["TokenPart"]


class TokenPart(RowPart):
    """Token numbers ``a`` (n, T) and cotangents ``g`` (R, T, dim); dense over the tokens that occur only."""

    def formed(self) -> Tensor:
        """See :class:`RowPart`."""
        dim, vocabulary = self.block.shape
        spread = _spread(self.g.double(), self.a[self.example], vocabulary)
        return spread.reshape(-1, vocabulary, dim).transpose(1, 2).flatten(1)

    def norms(self) -> Tensor:
        """See :class:`RowPart`."""
        g = self.g.double()
        same = _same(self.a).to(g)[self.example]
        return (torch.matmul(same, g) * g).sum((1, 2))

    def own(self, rows: int) -> Tensor:
        """See :class:`RowPart`."""
        g = self.g.reshape(-1, rows, *self.g.shape[1:]).double()
        summed = torch.matmul(_same(self.a).to(g).unsqueeze(1), g)
        return summed.flatten(2) @ g.flatten(2).transpose(-1, -2)

    def add_dot(self, total: Tensor, other: RowPart) -> None:
        """See :class:`RowPart`; only tokens that occur on both sides matter."""
        if not isinstance(other, TokenPart):
            super().add_dot(total, other)
            return
        g, h = self.g.double(), other.g.double()
        used = torch.unique(torch.cat([self.a.flatten(), other.a.flatten()]))
        right = _spread(h, torch.searchsorted(used, other.a)[other.example], len(used))
        for s in slices(len(g), len(used) * g.shape[-1]):
            total[s] += _spread(g[s], torch.searchsorted(used, self.a)[self.example[s]], len(used)) @ right.t()

    def times(self, v: Tensor) -> Tensor:
        """See :class:`RowPart`."""
        g, moved = self.g.double(), v.t()[self.a]
        out = g.new_empty(len(g))
        for s in slices(len(g), g.shape[1] * g.shape[2]):
            out[s] = (g[s] * moved[self.example[s]]).sum((1, 2))
        return out

    def transposed_times(self, w: Tensor) -> Tensor:
        """See :class:`RowPart`."""
        by_example = gathered(self.example, self.g.double() * w[:, None, None], len(self.a))
        return self._by_token(by_example.flatten(0, 1)).t()

    def add_times_stack(self, total: Tensor, v: Tensor) -> None:
        """See :class:`RowPart`."""
        g, a = self.g.double(), self.a
        for vs in slices(len(v), a.numel() * self.block.shape[0]):
            moved = v[vs].permute(2, 0, 1)[a].transpose(1, 2).flatten(2)  # (n, k, T·dim)
            for s in slices(len(g), moved[0].numel()):
                total[vs, s] += torch.matmul(moved[self.example[s]], g[s].flatten(1).unsqueeze(-1)).squeeze(-1).t()

    def transposed_times_stack(self, w: Tensor) -> Iterator[tuple[slice, Tensor]]:
        """See :class:`RowPart`."""
        g = self.g.double()
        for s in slices(len(w), g.numel()):
            by_example = gathered(self.example, w[s].t()[:, :, None, None] * g.unsqueeze(1), len(self.a))
            by_token = self._by_token(by_example.transpose(1, 2).flatten(0, 1))
            yield s, by_token.permute(1, 2, 0).flatten(1)

    def add_gram(self, total: Tensor, edges: Sequence[tuple[int, int]]) -> None:
        """See :class:`RowPart`; over the tokens that occur."""
        used, place = torch.unique(self.a, return_inverse=True)
        add_panels(total, _spread(self.g, place[self.example], len(used)), edges)

    def _by_token(self, values: Tensor) -> Tensor:
        """(n·T, ...) summed by token, (vocabulary, ...)."""
        out = torch.zeros(self.block.shape[1], *values.shape[1:], dtype=torch.float64, device=values.device)
        return out.index_add_(0, self.a.flatten(), values)


def _same(tokens: Tensor) -> Tensor:
    """Which positions of an example hold the same token, (n, T, T)."""
    return tokens.unsqueeze(2) == tokens.unsqueeze(1)


def _spread(g: Tensor, tokens: Tensor, count: int) -> Tensor:
    """Cotangents (R, T, dim) summed by token, (R, count·dim)."""
    out = g.new_zeros(len(g), count, g.shape[-1])
    out.scatter_add_(1, tokens.unsqueeze(-1).expand_as(g), g)
    return out.flatten(1)
