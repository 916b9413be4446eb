"""The dual on the principal rows of many examples, without ever holding the others.

One pass finds every example's principal Fisher rows and their sizes, a second reads the greatest of them. What is left
out is stated: F_kept ⪯ F, and no eigenvalue moves by more than the trace left out (Weyl).
"""

from __future__ import annotations

import torch
from torch import Tensor

from memspace.metric.dual import Dual, Selection
from memspace.passes.batching import examples_at_once
from memspace.passes.cotangent import View, output_cotangents
from memspace.passes.engine import OUTPUTS, run_pass
from memspace.passes.rows import CollectRows, Rows, joined
from memspace.passes.scores import OwnFisher
from memspace.passes.statistics import _Table
from memspace.progress import Progress
from memspace.task.likelihood import Likelihood
from memspace.task.space import ParameterSpace
from memspace.task.task import Task

__all__ = ["principal_dual"]

TOLERANCE = 1e-8  # rows are dropped freely while their share of the trace stays below this


class _Mixed(_Table):
    """Hands the view combinations of each example's Fisher root rows."""

    def __init__(self, law: Likelihood, mixes: Tensor, place: Tensor) -> None:
        super().__init__()
        self._law, self._mixes, self._place = law, mixes, place

    def update(self, view: View) -> None:
        """Give one batch's cotangents."""
        root = output_cotangents("exact", self._law, view.f, view.y)  # (K, B, ..., C)
        mix = self._mixes[self._place[view.index]].to(root)  # (B, K, R)
        view.give(torch.einsum("kb...,bkr->rb...", root, mix))


def principal_dual(
    task: Task,
    space: ParameterSpace,
    *,
    limit: int,
    index: Tensor | None = None,
    progress: Progress | None = None,
) -> Dual:
    """F of the training examples (or those at ``index``) through at most ``limit`` rows; ``left_out`` says the rest.

    Exact where no more than ``limit`` rows carry anything. Holds a factor pair per row kept and a limit × limit
    float64 matrix.
    """
    every = torch.arange(len(task.train)) if index is None else index
    table = OwnFisher(space.blocks)
    run_pass(task, space, [table], index=index, progress=progress, what="sizes of Fisher rows")
    values, vectors = torch.linalg.eigh(table.finish()["own"].double())
    flat = values.clamp_min(0).flatten()
    order = flat.argsort(descending=True)
    total = float(flat.sum())
    tail = total - flat[order].cumsum(0)
    chosen = order[: min(limit, int((tail > TOLERANCE * total).sum()) + 1)]
    kept = torch.zeros_like(flat, dtype=torch.bool)
    kept[chosen] = flat[chosen] > 0
    kept[order[0]] = True  # a network that is sure of everything has a metric of zero, which is a metric still
    counts = kept.reshape(values.shape).sum(1)
    parts: list[Rows] = []
    for count in range(1, values.shape[1] + 1):
        of = (counts == count).nonzero().flatten()
        if not len(of):
            continue
        place = torch.zeros(len(task.train), dtype=torch.long, device=of.device)
        place[every.to(of.device)[of]] = torch.arange(len(of), device=of.device)
        give = _Mixed(task.likelihood, vectors[of][:, :, -count:], place)  # an example's own greatest come last
        rows = CollectRows(space.blocks, "given", len(of))
        at_once = examples_at_once(task, task.train, min(OUTPUTS, count))
        run_pass(
            task, space, [give, rows], index=every[of.cpu()], batch=at_once, progress=progress, what="principal rows"
        )
        parts.append(rows.finish())
    left = max(0.0, 1.0 - float(flat[kept].sum()) / total) if total > 0 else 0.0
    return Dual.of(Selection(joined(parts), left, total), len(every))
