"""F in entries: all of them, those inside the blocks, or the diagonal."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from memspace.metric.block import BlockDiagonal, DenseBlock
from memspace.metric.context import BuildContext
from memspace.metric.metric import FisherMetric
from memspace.metric.representation import MemoryNeed, Representation, representation
from memspace.metric.spectral import Dense, Diagonal
from memspace.passes.engine import run_pass
from memspace.passes.statistics import DenseFisher, DiagonalFisher

__all__ = ["AsBlocks", "AsDense", "AsDiagonal"]

INSTEAD = "ekfac, dual or implicit"


def _read(context: BuildContext, statistics: Sequence[DenseFisher | DiagonalFisher]) -> None:
    """Run the one pass, and read the spread of sampled labels with it."""
    run_pass(context.task, context.space, [*statistics, *context.spread], context.options())


@representation
class AsDense(Representation):
    """F by its eigendecomposition: exact, for small networks."""

    name = "dense"

    def need(self, context: BuildContext) -> MemoryNeed:
        """Return the memory of two P × P matrices."""
        size = context.space.size
        return MemoryNeed(16 * size**2, f"a dense {size} × {size} metric", INSTEAD)

    def build(self, context: BuildContext) -> FisherMetric:
        """Sum the outer products of all rows."""
        table = DenseFisher(context.blocks, str(context.kind))
        _read(context, [table])
        return Dense.of(table.finish()["fisher"] / context.n, str(context.kind), context.sampling)


@representation
class AsBlocks(Representation):
    """F inside every block, exact there; zero between blocks."""

    name = "block"

    def need(self, context: BuildContext) -> MemoryNeed:
        """Return the memory of two square matrices per block."""
        return MemoryNeed(16 * sum(b.size**2 for b in context.blocks), "a dense matrix per block", INSTEAD)

    def build(self, context: BuildContext) -> FisherMetric:
        """Sum the outer products of the rows of every block."""
        kind = str(context.kind)
        tables = [DenseFisher((b,), kind) for b in context.blocks]
        _read(context, tables)
        means = [Dense.of(table.finish()["fisher"] / context.n, kind) for table in tables]
        parts = tuple(DenseBlock(b, mean) for b, mean in zip(context.blocks, means, strict=True))
        return BlockDiagonal(parts, kind, sampling=context.sampling)


@representation
class AsDiagonal(Representation):
    """The diagonal of F: exact there, zero elsewhere."""

    name = "diagonal"

    def build(self, context: BuildContext) -> FisherMetric:
        """Sum squared gradients."""
        table = DiagonalFisher(context.blocks, str(context.kind))
        _read(context, [table])
        sums = table.finish()
        values = torch.cat([sums[f"diag/{b.name}"].flatten() for b in context.blocks]) / context.n
        return Diagonal(values, str(context.kind), sampling=context.sampling)
