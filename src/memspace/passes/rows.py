"""Rows of the network's Jacobian in factored form: the dual side of the Fisher matrix, never P × rows in memory.

A row r belongs to example e(r) and is, per block, Σ_t g_rt a_{e(r)t}ᵀ; only a (one per example) and g (one per row)
are kept. Inner products between rows then cost (in + out) per pair for a plain layer instead of in·out.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from memspace.passes.blocks import FORMED
from memspace.passes.cotangent import View
from memspace.passes.forms.sums import slices
from memspace.passes.space import Block
from memspace.passes.statistic import Statistic

__all__ = ["CollectRows", "Rows", "joined", "kept_formed"]

LARGER = 1.75  # times the factors, that rows may be to be kept


@dataclass(frozen=True)
class Rows:
    """R rows over n examples.

    Args:
        blocks: the blocks, in the flat layout's order.
        a: block name → (n, T, in), for blocks kept as products; token numbers (n, T) for an embedding.
        g: block name → (R, T, out), or the row itself (R, out·in) for a block that is not in ``a``.
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
        if b.name not in self.a or b.name not in other.a:
            total.addmm_(self.formed(b), other.formed(b).t())
            return
        g, h = self.g[b.name].double(), other.g[b.name].double()
        a, c = self.a[b.name], other.a[b.name]
        if b.kind == "embedding":  # only tokens that occur on both sides matter
            used = torch.unique(torch.cat([a.flatten(), c.flatten()]))
            right = _spread(h, torch.searchsorted(used, c)[other.example], len(used))
            for s in slices(len(self), len(used) * g.shape[-1]):
                total[s] += _spread(g[s], torch.searchsorted(used, a)[self.example[s]], len(used)) @ right.t()
            return
        if a.shape[1] == 1 and c.shape[1] == 1:
            inner = a[:, 0].double() @ c[:, 0].double().t()
            for s in slices(len(self), len(other)):
                piece = g[s, 0] @ h[:, 0].t()
                piece *= inner[self.example[s]][:, other.example]
                total[s] += piece
            return
        right = other.formed(b)
        for s in slices(len(self), b.size):
            left = torch.matmul(g[s].transpose(-1, -2), a[self.example[s]].double()).flatten(1)
            total[s] += left @ right.t()

    def formed(self, b: Block) -> Tensor:
        """The rows of one block as dense vectors, (R, out·in), float64."""
        if b.name not in self.a:
            return self.g[b.name].double()
        if b.kind == "embedding":
            dim, vocabulary = b.shape
            spread = _spread(self.g[b.name].double(), self.a[b.name][self.example], vocabulary)
            return spread.reshape(-1, vocabulary, dim).transpose(1, 2).flatten(1)
        return torch.matmul(self.g[b.name].double().transpose(-1, -2), self.a[b.name][self.example].double()).flatten(1)

    def norms(self, b: Block) -> Tensor:
        """Squared norm of each row's part in one block, (R,), float64."""
        g = self.g[b.name].double()
        if b.name not in self.a:
            return g.square().sum(1)
        if b.kind == "embedding":
            same = _same(self.a[b.name]).to(g)[self.example]
            return (torch.matmul(same, g) * g).sum((1, 2))
        a = self.a[b.name].double()
        if a.shape[1] == 1:
            return g.square().sum((1, 2)) * a.square().sum((1, 2))[self.example]
        out = g.new_empty(len(self))
        for s in slices(len(self), b.size):
            out[s] = torch.matmul(g[s].transpose(-1, -2), a[self.example[s]]).square().sum((1, 2))
        return out

    def own_blocks(self, c: int) -> Tensor:
        """Inner products among the C consecutive rows of each example, (n, C, C), float64."""
        n = len(self) // c
        total = torch.zeros(n, c, c, dtype=torch.float64, device=self.example.device)
        for b in self.blocks:
            g = self.g[b.name].reshape(n, c, *self.g[b.name].shape[1:]).double()
            if b.name not in self.a:
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
            for s in slices(n, c * b.size):
                formed = torch.matmul(g[s].transpose(-1, -2), a[s].unsqueeze(1)).flatten(2)
                total[s] += formed @ formed.transpose(-1, -2)
        return total

    def times(self, v: Tensor) -> Tensor:
        """Row · v for flat v (P,) → (R,), float64."""
        out = torch.zeros(len(self), dtype=torch.float64, device=v.device)
        for b in self.blocks:
            matrix = b.view(v).double()
            g = self.g[b.name].double()
            if b.name not in self.a:
                out += g @ matrix.flatten()
                continue
            a = self.a[b.name]
            moved = matrix.t()[a] if b.kind == "embedding" else a.double() @ matrix.t()
            for s in slices(len(self), g.shape[1] * g.shape[2]):
                out[s] += (g[s] * moved[self.example[s]]).sum((1, 2))
        return out

    def transposed_times(self, w: Tensor) -> Tensor:
        """Σ_r w_r row_r for w (R,) → (P,), float64."""
        out = torch.zeros(self.size, dtype=torch.float64, device=w.device)
        for b in self.blocks:
            g = self.g[b.name].double()
            if b.name not in self.a:
                out[b.start : b.stop] = w.double() @ g
                continue
            a = self.a[b.name]
            gathered = torch.zeros(len(a), *g.shape[1:], dtype=torch.float64, device=w.device)
            gathered.index_add_(0, self.example, g * w.double()[:, None, None])
            if b.kind == "embedding":
                b.view(out).t().index_add_(0, a.flatten(), gathered.flatten(0, 1))
            else:
                b.view(out)[:] = torch.einsum("nto,nti->oi", gathered, a.double())
        return out


def joined(parts: Sequence[Rows]) -> Rows:
    """Rows of different examples one below the other; a block that one of them holds formed is formed in all."""
    first, a, g = parts[0], {}, {}
    for b in first.blocks:
        if all(b.name in p.a for p in parts):
            a[b.name] = _stacked([p.a[b.name] for p in parts], 1)
            g[b.name] = _stacked([p.g[b.name] for p in parts], 1)
        else:
            g[b.name] = torch.cat([p.formed(b).to(p.g[b.name].dtype) for p in parts])
    counts = [int(p.example[-1]) + 1 for p in parts]
    starts = [sum(counts[:i]) for i in range(len(parts))]
    return Rows(first.blocks, a, g, torch.cat([p.example + s for p, s in zip(parts, starts, strict=True)]))


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


class CollectRows(Statistic[Rows]):
    """Keeps the rows of one kind of cotangent for every example, C (= K) consecutive rows per example.

    A block whose rows are not much larger than their factors is kept as rows: they would be formed for every product.

    Args:
        count: how many examples there will be, where known: memory for them is taken once.
    """

    def __init__(self, blocks: Sequence[Block], kind: str = "jacobian", count: int = 0) -> None:
        self._blocks, self.kinds, self._count = tuple(blocks), (kind,), count
        self._a: dict[str, _Column] = {}
        self._g: dict[str, _Column] = {}
        self._formed: set[str] = set()

    def update(self, view: View) -> None:
        """Keep one batch."""
        pulled = view.cotangents(self.kinds[0])
        for b in self._blocks:
            g = pulled[b.name].transpose(0, 1)  # (B, K, T, out)
            if view.signals.generic(b):
                g = g.flatten(2)
            elif b.kind == "tied":
                self._formed.add(b.name)
                g = view.form(self.kinds[0], b).gradients().flatten(2).transpose(0, 1)
            elif b.kind == "embedding":
                tokens = view.signals.tokens(b)
                g = g * view.signals.counted(b).to(g.dtype)[:, None, :, None]
                self._column(self._a, b.name).append(tokens)
            elif b.kind not in FORMED:
                if b.name not in self._g and kept_formed(b, g.shape[2], g.shape[1]):
                    self._formed.add(b.name)  # the first batch decides: later ones may have other lengths
                if b.name in self._formed:
                    g = view.form(self.kinds[0], b).gradients().flatten(2).transpose(0, 1)
                else:
                    self._column(self._a, b.name).append(view.signals.rows(b))
            self._column(self._g, b.name).append(g)

    def _column(self, among: dict[str, _Column], name: str) -> _Column:
        return among.setdefault(name, _Column(self._count))

    def merge(self, other: Statistic[Rows]) -> None:
        """Append the other's rows."""
        assert isinstance(other, CollectRows)
        if self._g:  # both sides alike
            for key in self._a.keys() ^ other._a.keys():
                (self if key in self._a else other)._form(key)
        for mine, theirs in ((self._a, other._a), (self._g, other._g)):
            for key, column in theirs.items():
                for part in column.parts():
                    self._column(mine, key).append(part)

    def _form(self, name: str) -> None:
        a, g = self._a.pop(name).whole(1), self._g.pop(name).whole(2)
        self._formed.add(name)
        self._column(self._g, name).append(torch.einsum("bkto,bti->bkoi", g, a).flatten(2))

    def finish(self) -> Rows:
        """The rows, handed over: they are large."""
        a = {k: self._a.pop(k).whole(1) for k in list(self._a)}
        stacked = {k: self._g.pop(k).whole(2) for k in list(self._g)}
        first = next(iter(stacked.values()))
        n, count = first.shape[:2]
        example = torch.arange(n, device=first.device).repeat_interleave(count)
        return Rows(self._blocks, a, {k: v.flatten(0, 1) for k, v in stacked.items()}, example)

    def state(self) -> dict[str, Tensor]:
        """A and g of every block."""
        parts = {f"a/{k}": v.whole(1) for k, v in self._a.items()}
        return parts | {f"g/{k}": v.whole(2) for k, v in self._g.items()}

    def restore(self, state: dict[str, Tensor]) -> None:
        """Inverse of :meth:`state`."""
        self._a, self._g = {}, {}
        for key, value in state.items():
            self._column(self._a if key.startswith("a/") else self._g, key[2:]).append(value)
        formed = (b.name for b in self._blocks if b.kind not in (*FORMED, "embedding") and b.name not in self._a)
        self._formed = set(formed) & self._g.keys()


def kept_formed(b: Block, positions: int, rows: int) -> bool:
    """Whether ``CollectRows`` keeps a product block's rows rather than their factors."""
    return positions > 1 and rows * b.size <= LARGER * positions * (b.shape[1] + rows * b.shape[0])


class _Column:
    """Batches one after another along the examples, in memory taken once where their number is known."""

    def __init__(self, count: int) -> None:
        self._count, self._filled = count, 0
        self._buffer: Tensor | None = None
        self._parts: list[Tensor] = []

    def append(self, part: Tensor) -> None:
        if self._buffer is None and not self._parts and self._count > len(part):
            self._buffer = part.new_empty(self._count, *part.shape[1:])
        room = self._buffer is not None and self._filled + len(part) <= self._count and not self._parts
        if room and self._buffer is not None and part.shape[1:] == self._buffer.shape[1:]:
            self._buffer[self._filled : self._filled + len(part)] = part
            self._filled += len(part)
        else:
            self._parts.append(part.clone(memory_format=torch.contiguous_format))

    def parts(self) -> list[Tensor]:
        return ([] if self._buffer is None else [self._buffer[: self._filled]]) + self._parts

    def whole(self, positions: int) -> Tensor:
        """``positions``: the axis along which packed sequences of different length are filled up."""
        return _stacked(self.parts(), positions)
