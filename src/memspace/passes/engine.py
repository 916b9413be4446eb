"""Runs passes: one forward over the data and as few backwards as the statistics together need."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import torch

from memspace.errors import Interrupted, NonFiniteError
from memspace.passes.batching import examples_at_once
from memspace.passes.capture import Capture
from memspace.passes.cotangent import View
from memspace.passes.kinds import Kind
from memspace.passes.processes import current
from memspace.passes.statistic import Statistic
from memspace.progress import Progress, Silent
from memspace.task.checks import evaluating
from memspace.task.data import Data, move
from memspace.task.space import ParameterSpace
from memspace.task.task import Task

__all__ = ["run_pass"]

OUTPUTS = 4  # a pass with one cotangent per output holds several times the signals, most of them not at once


def run_pass(
    task: Task,
    space: ParameterSpace,
    statistics: Sequence[Statistic[Any]],
    *,
    data: Data | None = None,
    index: Sequence[int] | torch.Tensor | None = None,
    batch: int | None = None,
    most: int | None = None,
    seed: int = 0,
    progress: Progress | None = None,
    what: str = "reading the network",
) -> None:
    """Feed every batch to every statistic. Inside ``processes.across`` each process reads its shard.

    Args:
        data: which examples (default: the task's training data); ``index``: only those, in that order.
        batch: examples at a time (default: by the size of the network's signals, see ``batching``);
            ``most``: not more than so many, for the memory's sake.
        seed: of Monte-Carlo labels.

    Raises:
        NonFiniteError: the model gives NaN or infinite outputs.
        Interrupted: the user stopped the pass.
    """
    data = task.train if data is None else data
    progress = progress or Silent()
    total = len(data) if index is None else len(index)
    team = current()
    shared = team.shares(total)
    seen = [_empty(s) for s in statistics] if shared else statistics
    if shared:
        index = team.shard(total, index)
        total = len(index)
    jacobian = any("jacobian" in s.kinds for s in statistics)
    if batch is None:
        kinds = [Kind.of(k) for s in statistics for k in s.kinds]
        batch = examples_at_once(task, data, max([1, *(OUTPUTS if k.several else k.samples for k in kinds)]))
        batch = batch if most is None else min(batch, most)
    handle = progress.start(what, total)
    try:
        with evaluating(task.model), Capture(task.model, space) as capture:
            for part in data.batches(batch, index):
                signals = capture.forward(move(part.x, task.device, task.dtype))
                if not bool(torch.isfinite(signals.f).all()):
                    bad = int((~torch.isfinite(signals.f.flatten(1)).all(1)).sum())
                    raise NonFiniteError(
                        f"the model gives NaN or infinite outputs for {bad} of {len(part)} examples",
                        where=f"{data.name}, examples {int(part.index[0])}..{int(part.index[-1])}",
                        remedy="check those inputs and the model's normalisation for them",
                    )
                part = type(part)(part.index, part.x, move(part.y, task.device))
                view = View(signals, part, task.likelihood, seed, jacobian)
                for statistic in seen:
                    statistic.update(view)
                progress.advance(handle, len(part))
    except KeyboardInterrupt as error:
        raise Interrupted(
            "stopped by the user", where=what, remedy="the same command goes on from the last finished stage"
        ) from error
    finally:
        progress.finish(handle)
    if shared:
        for whole, mine in zip(statistics, seen, strict=True):
            team.join(whole, mine)


def _empty(statistic: Statistic[Any]) -> Statistic[Any]:
    """The same statistic, having seen nothing."""
    fresh = copy.copy(statistic)
    fresh.restore({})
    return fresh
