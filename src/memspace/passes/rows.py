"""Rows of the network's Jacobian in factored form: the dual side of the Fisher matrix, never P × rows in memory.

A row r belongs to example e(r) and is, per block, Σ_t g_rt a_{e(r)t}ᵀ; only a (one per example) and g (one per row)
are stored. Inner products between rows then cost (in + out) per pair for a plain layer instead of in·out.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from memspace.passes.layers.block import Block
from memspace.passes.row_parts.formed import FormedPart
from memspace.passes.row_parts.part import RowPart

__all__ = ["Rows", "joined", "stacked"]


@dataclass(frozen=True)
class Rows:
    """R rows over n examples.

    Args:
        blocks: the blocks, in the flat layout's order.
        a: block name to (n, T, in), for blocks stored as products; token numbers (n, T) for an embedding.
        g: block name to (R, T, out), or the row itself (R, out·in) for a block that is not in ``a``.
        example: (R,) the example of every row, as a position in a's first axis.
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
        """Take some of the rows.

        Args:
            rows: their positions.

        Returns:
            The rows, over the same n examples.
        """
        return Rows(self.blocks, self.a, {k: v[rows] for k, v in self.g.items()}, self.example[rows])

    def combine(self, weights: Tensor, example: Tensor) -> Rows:
        """Combine the rows of single examples, Σ_c w_rc row_{e(r)c}; rows must be C consecutive ones per example.

        Args:
            weights: w (R', C).
            example: e (R',).

        Returns:
            R' rows, over the same n examples.
        """
        c = weights.shape[1]
        g = {}
        for name, value in self.g.items():
            grouped = value.reshape(-1, c, *value.shape[1:])[example]
            g[name] = torch.einsum("rc,rc...->r...", weights.to(value.dtype), grouped)
        return Rows(self.blocks, self.a, g, example)

    def dot(self, other: Rows, block: Block | None = None) -> Tensor:
        """Compute inner products with other rows.

        Args:
            other: R' rows.
            block: the one block to read; None: all.

        Returns:
            (R, R'), float64.
        """
        total = torch.zeros(len(self), len(other), dtype=torch.float64, device=self.example.device)
        for b in self.blocks if block is None else (block,):
            self.part(b).add_dot(total, other.part(b))
        return total

    def part(self, block: Block) -> RowPart:
        """Return one block's part of the rows.

        Args:
            block: of the parameter space.

        Returns:
            The part, in the form it is stored in.
        """
        g = self.g[block.name]
        if block.name not in self.a or block.rule.row_part is None:
            return FormedPart(block, g, g, self.example)
        return block.rule.row_part(block, self.a[block.name], g, self.example)

    def formed(self, b: Block) -> Tensor:
        """Return one block's part of the rows as dense vectors.

        Args:
            b: the block.

        Returns:
            (R, out·in), float64.
        """
        return self.part(b).formed()

    def norms(self, b: Block) -> Tensor:
        """Compute squared norms of one block's part of the rows.

        Args:
            b: the block.

        Returns:
            (R,), float64.
        """
        return self.part(b).norms()

    def own_blocks(self, c: int) -> Tensor:
        """Compute inner products among the C consecutive rows of every example.

        Args:
            c: C.

        Returns:
            (n, C, C), float64.
        """
        total = torch.zeros(len(self) // c, c, c, dtype=torch.float64, device=self.example.device)
        for b in self.blocks:
            total += self.part(b).own(c)
        return total

    def times(self, v: Tensor) -> Tensor:
        """Multiply every row with one vector.

        Args:
            v: (P,).

        Returns:
            (R,), float64.
        """
        out = torch.zeros(len(self), dtype=torch.float64, device=v.device)
        for b in self.blocks:
            out += self.part(b).times(b.view(v).double())
        return out

    def transposed_times(self, w: Tensor) -> Tensor:
        """Sum the rows with weights, Σ_r w_r row_r.

        Args:
            w: (R,).

        Returns:
            (P,), float64.
        """
        out = torch.zeros(self.size, dtype=torch.float64, device=w.device)
        for b in self.blocks:
            b.view(out)[:] = self.part(b).transposed_times(w.double())
        return out


def joined(parts: Sequence[Rows]) -> Rows:
    """Join rows of different examples.

    Args:
        parts: rows over the same blocks; a block that one of them stores as rows is formed in all.

    Returns:
        All rows, in order.
    """
    first, a, g = parts[0], {}, {}
    for b in first.blocks:
        if all(b.name in p.a for p in parts):
            a[b.name] = stacked([p.a[b.name] for p in parts], 1)
            g[b.name] = stacked([p.g[b.name] for p in parts], 1)
        else:
            g[b.name] = torch.cat([p.formed(b).to(p.g[b.name].dtype) for p in parts])
    counts = [int(p.example[-1]) + 1 for p in parts]
    starts = [sum(counts[:i]) for i in range(len(parts))]
    return Rows(first.blocks, a, g, torch.cat([p.example + s for p, s in zip(parts, starts, strict=True)]))


def stacked(parts: Sequence[Tensor], positions: int) -> Tensor:
    """Join batches; shorter ones (of packed sequences) are padded with positions that hold zeros.

    Args:
        parts: one tensor a batch, examples first.
        positions: the axis along which batches may differ in length.

    Returns:
        One tensor.
    """
    if parts[0].dim() > positions + 1 or parts[0].dtype == torch.long:
        most = max(p.shape[positions] for p in parts)
        after = parts[0].dim() - positions - 1
        if any(p.shape[positions] != most for p in parts):
            parts = [torch.nn.functional.pad(p, (0, 0) * after + (0, most - p.shape[positions])) for p in parts]
    return torch.cat(list(parts)) if len(parts) > 1 else parts[0]
