"""Rows of the network's Jacobian in factored form: the dual side of the Fisher matrix, never P × rows in memory.

A row r belongs to example e(r) and is, per block, Σ_t g_rt a_{e(r)t}ᵀ; only a (one per example) and g (one per row)
are kept. Inner products between rows then cost (in + out) per pair for a plain layer instead of in·out.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from memspace.passes.cotangent import View
from memspace.passes.forms import CHUNK
from memspace.passes.statistic import Statistic
from memspace.task.blocks import FORMED
from memspace.task.space import Block

__all__ = ["CollectRows", "Rows"]


@dataclass(frozen=True)
class Rows:
    """R rows over n examples.

    Args:
        blocks: the blocks, in the flat layout's order.
        a: block name → (n, T, in), for blocks with a product form; token numbers (n, T) for an embedding.
        g: block name → (R, T, out), or the row itself (R, p) for a block without one.
        example: (R,) which example (position in a's first axis) each row belongs to.
    """

    blocks: tuple[Block, ...]
    a: dict[str, Tensor]
    g: dict[str, Tensor]
    example: Tensor

    def __len__(self) -> int:
        return len(self.example)

    @property
    def size(self) -> int:
        """Number of parameters P."""
        return self.blocks[-1].stop

    def take(self, rows: Tensor | slice) -> Rows:
        """The rows at the given positions."""
        return Rows(self.blocks, self.a, {k: v[rows] for k, v in self.g.items()}, self.example[rows])

    def combine(self, weights: Tensor, example: Tensor) -> Rows:
        """New rows, one per row of ``weights`` (R', C): that combination of the C rows of ``example`` (R',).

        Needs the rows to be ordered as C consecutive ones per example.
        """
        c = weights.shape[1]
        g = {}
        for name, value in self.g.items():
            grouped = value.reshape(-1, c, *value.shape[1:])[example]
            g[name] = torch.einsum("rc,rc...->r...", weights.to(value.dtype), grouped)
        return Rows(self.blocks, self.a, g, example)

    def dot(self, other: Rows, block: Block | None = None) -> Tensor:
        """Inner products (R, R'), float64; of one block only where given."""
        total = torch.zeros(len(self), len(other), dtype=torch.float64, device=self.example.device)
        for b in self.blocks if block is None else (block,):
            self._add_dot(total, other, b)
        return total

    def _add_dot(self, total: Tensor, other: Rows, b: Block) -> None:
        g, h = self.g[b.name].double(), other.g[b.name].double()
        if b.kind in FORMED:
            total.addmm_(g, h.t())
            return
        a, c = self.a[b.name], other.a[b.name]
        if b.kind == "embedding":  # only tokens that occur on both sides matter
            used = torch.unique(torch.cat([a.flatten(), c.flatten()]))
            right = _spread(h, torch.searchsorted(used, c)[other.example], len(used))
            for s in _slices(len(self), len(used) * g.shape[-1]):
                total[s] += _spread(g[s], torch.searchsorted(used, a)[self.example[s]], len(used)) @ right.t()
            return
        if a.shape[1] == 1 and c.shape[1] == 1:
            inner = a[:, 0].double() @ c[:, 0].double().t()
            for s in _slices(len(self), len(other)):
                piece = g[s, 0] @ h[:, 0].t()
                piece *= inner[self.example[s]][:, other.example]
                total[s] += piece
            return
        right = other.formed(b)
        for s in _slices(len(self), b.size):
            left = torch.matmul(g[s].transpose(-1, -2), a[self.example[s]].double()).flatten(1)
            total[s] += left @ right.t()

    def formed(self, b: Block) -> Tensor:
        """The rows of one block as dense vectors, (R, out·in), float64."""
        if b.kind in FORMED:
            return self.g[b.name].double()
        if b.kind == "embedding":
            dim, vocabulary = b.shape
            spread = _spread(self.g[b.name].double(), self.a[b.name][self.example], vocabulary)
            return spread.reshape(-1, vocabulary, dim).transpose(1, 2).flatten(1)
        return torch.matmul(self.g[b.name].double().transpose(-1, -2), self.a[b.name][self.example].double()).flatten(1)

    def norms(self, b: Block) -> Tensor:
        """Squared norm of each row's part in one block, (R,), float64."""
        g = self.g[b.name].double()
        if b.kind in FORMED:
            return g.square().sum(1)
        if b.kind == "embedding":
            same = _same(self.a[b.name]).to(g)[self.example]
            return (torch.matmul(same, g) * g).sum((1, 2))
        a = self.a[b.name].double()
        if a.shape[1] == 1:
            return g.square().sum((1, 2)) * a.square().sum((1, 2))[self.example]
        out = g.new_empty(len(self))
        for s in _slices(len(self), b.size):
            out[s] = torch.matmul(g[s].transpose(-1, -2), a[self.example[s]]).square().sum((1, 2))
        return out

    def own_blocks(self, c: int) -> Tensor:
        """Inner products among the C consecutive rows of each example, (n, C, C), float64."""
        n = len(self) // c
        total = torch.zeros(n, c, c, dtype=torch.float64, device=self.example.device)
        for b in self.blocks:
            g = self.g[b.name].reshape(n, c, *self.g[b.name].shape[1:]).double()
            if b.kind in FORMED:
                total += g @ g.transpose(-1, -2)
                continue
            if b.kind == "embedding":
                gathered = torch.matmul(_same(self.a[b.name]).to(g).unsqueeze(1), g)
                total += gathered.flatten(2) @ g.flatten(2).transpose(-1, -2)
                continue
            a = self.a[b.name].double()
            if a.shape[1] == 1:
                total += (g[:, :, 0] @ g[:, :, 0].transpose(-1, -2)) * a.square().sum((1, 2))[:, None, None]
                continue
            for s in _slices(n, c * b.size):
                formed = torch.matmul(g[s].transpose(-1, -2), a[s].unsqueeze(1)).flatten(2)
                total[s] += formed @ formed.transpose(-1, -2)
        return total

    def times(self, v: Tensor) -> Tensor:
        """Row · v for flat v (P,) → (R,), float64."""
        out = torch.zeros(len(self), dtype=torch.float64, device=v.device)
        for b in self.blocks:
            matrix = b.view(v).double()
            g = self.g[b.name].double()
            if b.kind in FORMED:
                out += g @ matrix[0]
                continue
            a = self.a[b.name]
            moved = matrix.t()[a] if b.kind == "embedding" else a.double() @ matrix.t()
            for s in _slices(len(self), g.shape[1] * g.shape[2]):
                out[s] += (g[s] * moved[self.example[s]]).sum((1, 2))
        return out

    def transposed_times(self, w: Tensor) -> Tensor:
        """Σ_r w_r row_r for w (R,) → (P,), float64."""
        out = torch.zeros(self.size, dtype=torch.float64, device=w.device)
        for b in self.blocks:
            g = self.g[b.name].double()
            if b.kind in FORMED:
                b.view(out)[0] = w.double() @ g
                continue
            a = self.a[b.name]
            gathered = torch.zeros(len(a), *g.shape[1:], dtype=torch.float64, device=w.device)
            gathered.index_add_(0, self.example, g * w.double()[:, None, None])
            if b.kind == "embedding":
                b.view(out).t().index_add_(0, a.flatten(), gathered.flatten(0, 1))
            else:
                b.view(out)[:] = torch.einsum("nto,nti->oi", gathered, a.double())
        return out


def _stacked(parts: Sequence[Tensor], positions: int) -> Tensor:
    """Batches one after another; shorter ones (of packed sequences) are filled up with positions that hold zeros."""
    if parts[0].dim() > positions + 1 or parts[0].dtype == torch.long:
        most = max(p.shape[positions] for p in parts)
        after = parts[0].dim() - positions - 1
        if any(p.shape[positions] != most for p in parts):
            parts = [torch.nn.functional.pad(p, (0, 0) * after + (0, most - p.shape[positions])) for p in parts]
    return torch.cat(list(parts)) if len(parts) > 1 else parts[0]


def _same(tokens: Tensor) -> Tensor:
    """Which positions of an example hold the same token, (n, T, T)."""
    return tokens.unsqueeze(2) == tokens.unsqueeze(1)


def _spread(g: Tensor, tokens: Tensor, vocabulary: int) -> Tensor:
    """Cotangents (R, T, dim) summed by token, (R, vocabulary·dim)."""
    out = g.new_zeros(len(g), vocabulary, g.shape[-1])
    out.scatter_add_(1, tokens.unsqueeze(-1).expand_as(g), g)
    return out.flatten(1)


def _slices(count: int, width: int) -> Iterator[slice]:
    step = max(1, CHUNK // max(1, width))
    for start in range(0, count, step):
        yield slice(start, min(count, start + step))


class CollectRows(Statistic[Rows]):
    """Keeps the rows of one kind of cotangent for every example, C (= K) consecutive rows per example."""

    def __init__(self, blocks: Sequence[Block], kind: str = "jacobian") -> None:
        self._blocks, self.kinds = tuple(blocks), (kind,)
        self._a: dict[str, list[Tensor]] = {}
        self._g: dict[str, list[Tensor]] = {}

    def update(self, view: View) -> None:
        """Keep one batch."""
        pulled = view.cotangents(self.kinds[0])
        for b in self._blocks:
            g = pulled[b.name].transpose(0, 1)
            if b.kind == "embedding":
                tokens = view.signals.tokens(b)
                g = g * view.signals.counted(b).to(g.dtype)[:, None, :, None]
                self._a.setdefault(b.name, []).append(tokens.clone())
            elif b.kind not in FORMED:
                self._a.setdefault(b.name, []).append(view.signals.rows(b))
            self._g.setdefault(b.name, []).append(g.contiguous())

    def merge(self, other: Statistic[Rows]) -> None:
        """Append the other's rows."""
        assert isinstance(other, CollectRows)
        for mine, theirs in ((self._a, other._a), (self._g, other._g)):
            for key, parts in theirs.items():
                mine.setdefault(key, []).extend(parts)

    def finish(self) -> Rows:
        """The rows."""
        a = {k: _stacked(v, 1) for k, v in self._a.items()}
        stacked = {k: _stacked(v, 2) for k, v in self._g.items()}
        first = next(iter(stacked.values()))
        n, count = first.shape[:2]
        example = torch.arange(n, device=first.device).repeat_interleave(count)
        return Rows(self._blocks, a, {k: v.flatten(0, 1) for k, v in stacked.items()}, example)

    def state(self) -> dict[str, Tensor]:
        """A and g of every block."""
        parts = {f"a/{k}": _stacked(v, 1) for k, v in self._a.items()}
        return parts | {f"g/{k}": _stacked(v, 2) for k, v in self._g.items()}

    def restore(self, state: dict[str, Tensor]) -> None:
        """Inverse of :meth:`state`."""
        self._a = {k[2:]: [v] for k, v in state.items() if k.startswith("a/")}
        self._g = {k[2:]: [v] for k, v in state.items() if k.startswith("g/")}
