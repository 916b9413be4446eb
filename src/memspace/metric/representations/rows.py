"""F by the Gram matrix of its rows: the dual."""

from __future__ import annotations

from dataclasses import replace

import torch

from memspace.metric.context import BuildContext
from memspace.metric.draw import TOLERANCE
from memspace.metric.dual import Dual, select_rows
from memspace.metric.exact import output_root, read_jacobian
from memspace.metric.metric import FisherMetric
from memspace.metric.representation import MemoryNeed, Representation, representation
from memspace.passes.collect import CollectRows
from memspace.passes.engine import run_pass
from memspace.passes.kinds import Kind

__all__ = ["AsDual"]


@representation
class AsDual(Representation):
    """F through inner products of its rows: exact, with an exact null space."""

    name = "dual"

    def need(self, context: BuildContext) -> MemoryNeed:
        """Return the memory of three square matrices, a row and a column per Fisher row."""
        rows = context.n * context.cotangents(_read_kind(context))
        return MemoryNeed(3 * 8 * rows**2, f"a Gram matrix of {rows} rows ({context.n} examples)")

    def build(self, context: BuildContext) -> FisherMetric:
        """Read Jacobian rows and mix them to Fisher rows; rows of sampled labels are Fisher rows already."""
        if context.kind.name == "mc":
            return _of_sampled_labels(context)
        kind = str(context.kind)
        jacobian = read_jacobian(context.task, context.space, context.options(_read_kind(context)))
        root = output_root(context.task.likelihood, jacobian, kind)
        tolerance = 0.0 if jacobian.f.dim() > 2 else TOLERANCE  # a small share of a sequence's many rows still counts
        selection = select_rows(jacobian.rows, root, len(jacobian.rows), tolerance)
        return Dual.of(selection, context.n, kind)


def _read_kind(context: BuildContext) -> Kind:
    """The cotangents that are pulled back: unit vectors of the outputs, or sampled residuals."""
    return context.kind if context.kind.name == "mc" else Kind("jacobian")


def _of_sampled_labels(context: BuildContext) -> Dual:
    kind, samples = str(context.kind), context.kind.samples
    collected = CollectRows(context.blocks, kind)
    run_pass(context.task, context.space, [collected, *context.spread], context.options())
    rows = collected.finish()
    eye = torch.eye(samples, dtype=torch.float64).expand(context.n, -1, -1)
    metric = Dual.of(select_rows(rows, eye, len(rows), 0.0), context.n, kind)
    return replace(metric, sampling=context.sampling)
