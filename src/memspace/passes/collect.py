"""A statistic that collects Jacobian rows in factored form, batch by batch."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from memspace.passes.cotangent import View
from memspace.passes.layers.block import Block
from memspace.passes.rows import Rows, stacked
from memspace.passes.statistic import Statistic

__all__ = ["CollectRows"]


class CollectRows(Statistic[Rows]):
    """Rows of one kind of cotangent for every example, C (= K) consecutive rows per example.

    A block whose rows are not much larger than their factors is stored as rows: products would form them every time.

    Args:
        blocks: of the parameter space.
        kind: of the cotangents (see ``memspace.passes.cotangent``).
        count: number of examples, where known: memory is then allocated once; 0: unknown.
    """

    def __init__(self, blocks: Sequence[Block], kind: str = "jacobian", count: int = 0) -> None:
        self._blocks, self.kinds, self._count = tuple(blocks), (kind,), count
        self._a: dict[str, _Column] = {}
        self._g: dict[str, _Column] = {}
        self._formed: set[str] = set()

    def update(self, view: View) -> None:
        """Store one batch."""
        pulled = view.cotangents(self.kinds[0])
        for b in self._blocks:
            g = pulled[b.name].transpose(0, 1)  # (B, K, T, out)
            if view.signals.by_example(b) or self._as_rows(b, g):
                g = view.form(self.kinds[0], b).gradients().flatten(2).transpose(0, 1)
            else:
                a, g = b.rule.row_factors(view.signals.read(b), g)
                self._column(self._a, b.name).append(a)
            self._column(self._g, b.name).append(g)

    def _as_rows(self, b: Block, g: Tensor) -> bool:
        """Whether a block's rows are stored as rows. The first batch decides: later ones may have other lengths."""
        if b.rule.row_part is None:
            return True
        if b.name not in self._g and b.rule.forms_rows(b, g.shape[2], g.shape[1]):
            self._formed.add(b.name)
        return b.name in self._formed

    def _column(self, columns: dict[str, _Column], name: str) -> _Column:
        return columns.setdefault(name, _Column(self._count))

    def merge(self, other: Statistic[Rows]) -> None:
        """Append the other's rows."""
        assert isinstance(other, CollectRows)
        if self._g:  # a block is stored in the same form on both sides
            for key in self._a.keys() ^ other._a.keys():
                (self if key in self._a else other)._form(key)
        for mine, theirs in ((self._a, other._a), (self._g, other._g)):
            for key, column in theirs.items():
                for part in column.parts():
                    self._column(mine, key).append(part)

    def _form(self, name: str) -> None:
        a, g = self._a.pop(name).whole(1), self._g.pop(name).whole(2)
        block = next(b for b in self._blocks if b.name == name)
        rows = Rows((block,), {name: a}, {name: g.flatten(0, 1)}, _examples(g)).formed(block)
        self._formed.add(name)
        self._column(self._g, name).append(rows.to(g.dtype).reshape(*g.shape[:2], -1))

    def finish(self) -> Rows:
        """Return the rows and drop them here, since they are large."""
        a = {k: self._a.pop(k).whole(1) for k in list(self._a)}
        g = {k: self._g.pop(k).whole(2) for k in list(self._g)}
        example = _examples(next(iter(g.values())))
        return Rows(self._blocks, a, {k: v.flatten(0, 1) for k, v in g.items()}, example)

    def state(self) -> dict[str, Tensor]:
        """Return a and g of every block."""
        parts = {f"a/{k}": v.whole(1) for k, v in self._a.items()}
        return parts | {f"g/{k}": v.whole(2) for k, v in self._g.items()}

    def restore(self, state: dict[str, Tensor]) -> None:
        """Restore what :meth:`state` returned."""
        self._a, self._g = {}, {}
        for key, value in state.items():
            self._column(self._a if key.startswith("a/") else self._g, key[2:]).append(value)
        self._formed = {b.name for b in self._blocks if b.name in self._g and b.name not in self._a}


def _examples(g: Tensor) -> Tensor:
    """The example of every row of (B, K, ...), (B·K,)."""
    return torch.arange(len(g), device=g.device).repeat_interleave(g.shape[1])


class _Column:
    """Batches one after another along the examples, in memory allocated once where their number is known."""

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
        return stacked(self.parts(), positions)
