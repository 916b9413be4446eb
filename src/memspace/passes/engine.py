"""Runs passes: one forward over the data and as few backwards as the statistics together need."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

import torch

from memspace.errors import Interrupted, NonFiniteError, UnsupportedLayerError
from memspace.passes.batching import examples_at_once
from memspace.passes.capture import Capture
from memspace.passes.cotangent import View
from memspace.passes.guard import Guard, at_once, overruled
from memspace.passes.kinds import Kind
from memspace.passes.processes import Processes, current
from memspace.passes.proof import RefutedError
from memspace.passes.space import ParameterSpace
from memspace.passes.statistic import Statistic
from memspace.progress import Progress, Silent
from memspace.task.checks import evaluating
from memspace.task.data import Batch, Data, move
from memspace.task.task import Task

__all__ = ["PassOptions", "run_pass"]

END = 17  # examples of the first and the last batch, which are always proven; seldom the length of another axis
MANY = 512  # examples from which on it pays to have them apart
OUTPUTS = 4  # a pass with one cotangent per output holds several times the signals, most of them not at once


@dataclass(frozen=True)
class PassOptions:
    """Say which examples a pass reads, and how.

    Args:
        data: the examples; None: the task's training data.
        index: positions (n,) in ``data`` of the examples to read, in that order; None: all of them.
        batch: examples at a time; None: by the size of the network's signals (see ``batching``).
        most: examples at a time at most, for the sake of memory, where ``batch`` is None.
        seed: of sampled labels.
        progress: whom the pass tells how far it is; None: nobody.
        what: the name of the pass, for people.
    """

    data: Data | None = None
    index: Sequence[int] | torch.Tensor | None = None
    batch: int | None = None
    most: int | None = None
    seed: int = 0
    progress: Progress | None = None
    what: str = "reading the network"

    def but(self, **changes: Any) -> PassOptions:
        """Return these options with some of them changed, by name."""
        return replace(self, **changes)


@dataclass(frozen=True)
class _Pass:
    """One pass of one process: the examples ``order`` (n,) of ``data`` go to ``statistics``.

    ``jacobian``: unit cotangents are pulled back, and others mixed from them.
    """

    task: Task
    space: ParameterSpace
    statistics: Sequence[Statistic[Any]]
    data: Data
    order: torch.Tensor
    jacobian: bool
    options: PassOptions


def run_pass(
    task: Task, space: ParameterSpace, statistics: Sequence[Statistic[Any]], options: PassOptions | None = None
) -> None:
    """Feed every batch to every statistic. Inside ``processes.across`` each process reads its shard.

    The pass proves itself as it goes (see ``guard``). Where some modules' gradients turn out not to be autograd's, it
    starts again and reads them the generic way, exactly, in the layout they have.

    Args:
        task: the network and its data.
        space: the parameters, laid out in blocks.
        statistics: what is gathered; each is updated in place.
        options: which examples are read, and how; None: all training examples.

    Raises:
        NonFiniteError: the model gives NaN or infinite outputs.
        DataError, StochasticModelError: examples read again are others, or have other outputs.
        UnsupportedLayerError: a module's gradients are not autograd's by any way.
        Interrupted: the user stopped the pass.
    """
    options = options or PassOptions()
    data = task.train if options.data is None else options.data
    order = torch.arange(len(data)) if options.index is None else torch.as_tensor(options.index, dtype=torch.long)
    processes = current()
    shared = processes.shares(len(order))
    seen = [_empty(s) for s in statistics] if shared else statistics
    if shared:
        order = torch.as_tensor(processes.shard(len(order), order), dtype=torch.long)
    jacobian = any("jacobian" in s.kinds for s in statistics)
    batch, ends = _batches(task, data, statistics, len(order), options)
    reading = _Pass(task, space, seen, data, order, jacobian, options)
    fresh = [_cloned(s.state()) for s in seen]
    while True:
        try:
            _read(reading, _parts(len(order), batch, ends))
        except _Again as again:
            batch = min(batch, at_once(space, again.cotangents))
        else:
            if not shared or _agreed(processes, space):
                break
        for statistic, state in zip(seen, fresh, strict=True):
            statistic.restore(_cloned(state))
    space.finished += 1
    if shared:
        for whole, mine in zip(statistics, seen, strict=True):
            processes.join(whole, mine)


def _batches(
    task: Task, data: Data, statistics: Sequence[Statistic[Any]], total: int, options: PassOptions
) -> tuple[int, int]:
    """(examples at a time, examples of the first and of the last batch where those are read by themselves)."""
    if options.batch is not None:
        return options.batch, 0
    kinds = [Kind.of(k) for s in statistics for k in s.kinds]
    batch = examples_at_once(task, data, max([1, *(OUTPUTS if k.several else k.samples for k in kinds)]))
    batch = batch if options.most is None else min(batch, options.most)
    return batch, min(END, batch) if total >= MANY else 0


def _empty(statistic: Statistic[Any]) -> Statistic[Any]:
    """The same statistic, having seen nothing."""
    fresh = copy.copy(statistic)
    fresh.restore({})
    return fresh


def _parts(total: int, batch: int, ends: int) -> list[slice]:
    """Which examples go together; the first and the last ``ends`` by themselves, where that is not 0."""
    edges = [0] if not ends else [0, ends]
    while edges[-1] < total - ends:
        edges.append(min(edges[-1] + batch, total - ends))
    if ends:
        edges.append(total)
    return [slice(a, b) for a, b in pairwise(edges)]


class _Again(Exception):
    """The pass has to start again: some modules are read another way now."""

    def __init__(self, cotangents: int) -> None:
        super().__init__()
        self.cotangents = cotangents


def _read(reading: _Pass, parts: Sequence[slice]) -> None:
    task, space, options, total = reading.task, reading.space, reading.options, len(reading.order)
    progress = options.progress or Silent()
    handle = progress.start(options.what, total)
    guard = Guard(task, space, reading.data, total, options.seed)
    try:
        with evaluating(task.model), Capture(task.model, space, guard) as capture:
            for where in parts:
                part = reading.data.batch(reading.order[where])
                try:
                    _batch(reading, part, capture, guard)
                except (RefutedError, UnsupportedLayerError) as error:
                    overruled(task, space, error, part)
                    raise _Again(getattr(error, "cotangents", 1)) from error
                progress.advance(handle, len(part))
    except KeyboardInterrupt as error:
        raise Interrupted(
            "stopped by the user", where=options.what, remedy="the same command goes on from the last finished stage"
        ) from error
    finally:
        progress.finish(handle)


def _batch(reading: _Pass, part: Batch, capture: Capture, guard: Guard) -> None:
    task = reading.task
    signals = capture.forward(move(part.x, task.device, task.dtype))
    if not bool(torch.isfinite(signals.f).all()):
        bad = int((~torch.isfinite(signals.f.flatten(1)).all(1)).sum())
        raise NonFiniteError(
            f"the model gives NaN or infinite outputs for {bad} of {len(part)} examples",
            where=f"{reading.data.name}, examples {int(part.index[0])}..{int(part.index[-1])}",
            remedy="check those inputs and the model's normalisation for them",
        )
    guard.begin(part, signals)
    part = type(part)(part.index, part.x, move(part.y, task.device))
    view = View(signals, part, task.likelihood, reading.options.seed, reading.jacobian)
    for statistic in reading.statistics:
        statistic.update(view)


def _agreed(team: Processes, space: ParameterSpace) -> bool:
    """Whether all processes read the same modules the generic way; they do from now on."""
    modules = sorted({b.module for b in space.blocks})
    mine = torch.tensor([float(m in space.refuted) for m in modules], dtype=torch.float64)
    found = team.add(mine.clone())
    space.refuted |= {m for m, count in zip(modules, found.tolist(), strict=True) if count > 0}
    return bool(((found == 0) | (found == team.size)).all())


def _cloned(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """What a statistic held before the pass, if anything: sums are added to in place."""
    return {k: v.clone() for k, v in state.items()}
