"""The dual on some of the principal rows of many examples, without ever holding the others.

One pass finds every example's principal Fisher rows and their sizes. A second reads those to hold: all that are not
zero, or a draw of them that leaves F unbiased (``metric.draw``).
"""

from __future__ import annotations

import torch
from torch import Tensor

from memspace.metric.draw import draw_rows
from memspace.metric.dual import Dual, Selection
from memspace.passes.batching import examples_at_once
from memspace.passes.collect import CollectRows
from memspace.passes.cotangent import View, output_cotangents
from memspace.passes.engine import OUTPUTS, PassOptions, run_pass
from memspace.passes.rows import Rows, joined
from memspace.passes.scores import OwnFisher
from memspace.passes.space import ParameterSpace
from memspace.passes.statistics import TableStatistic
from memspace.progress import Progress
from memspace.task.likelihood import Likelihood
from memspace.task.task import Task

__all__ = ["principal_dual"]


class _Mixed(TableStatistic):
    """Gives the view combinations of every example's Fisher root rows as cotangents."""

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
    seed: int = 0,
    progress: Progress | None = None,
) -> Dual:
    """Build the dual metric of the training examples on a limited number of rows.

    Exact where at most ``limit`` rows are not zero, else a draw; ``drawn`` is the share of the trace it concerns. Holds
    a factor pair per row and a limit × limit float64 matrix.

    Args:
        task: the network and its data.
        space: the parameters, laid out in blocks.
        limit: rows held at most.
        index: positions (n,) of the training examples to read; None: all.
        seed: of the draw.
        progress: notified of the passes; None: silent.

    Returns:
        The metric.
    """
    every = torch.arange(len(task.train)) if index is None else index
    table = OwnFisher(space.blocks)
    run_pass(task, space, [table], PassOptions(index=index, progress=progress, what="sizes of Fisher rows"))
    values, vectors = torch.linalg.eigh(table.finish()["own"].double())
    draw = draw_rows(values.flatten(), limit, seed=seed)
    chance = torch.zeros_like(values.flatten())
    chance[draw.index] = draw.chance
    chance = chance.view_as(values)
    counts = (chance > 0).sum(1)
    places = (chance > 0).byte().argsort(dim=1, descending=True, stable=True)  # the rows held come first
    parts: list[Rows] = []
    chances: list[Tensor] = []
    for count in range(1, values.shape[1] + 1):
        of = (counts == count).nonzero().flatten()
        if not len(of):
            continue
        place = torch.zeros(len(task.train), dtype=torch.long, device=of.device)
        place[every.to(of.device)[of]] = torch.arange(len(of), device=of.device)
        chosen = places[of][:, :count]
        odds = chance[of].gather(1, chosen)  # (B, R)
        mixes = vectors[of].gather(2, chosen.unsqueeze(1).expand(-1, vectors.shape[1], -1)) / odds.sqrt().unsqueeze(1)
        give = _Mixed(task.likelihood, mixes, place)
        rows = CollectRows(space.blocks, "given", len(of))
        at_once = examples_at_once(task, task.train, min(OUTPUTS, count))
        run_pass(
            task,
            space,
            [give, rows],
            PassOptions(index=every[of.cpu()], batch=at_once, progress=progress, what="principal rows"),
        )
        parts.append(rows.finish())
        chances.append(odds.flatten())
    return Dual.of(Selection(joined(parts), torch.cat(chances), draw.drawn), len(every))
