"""Passes over the data: one forward pass, and as few backward passes as the statistics together need."""

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

END = 17  # examples of the first and the last batch, which are always proven; rarely the length of another axis
MANY = 512  # from so many examples on, the first and the last batch are small ones
OUTPUTS = 4  # a pass with one cotangent per output holds several times the signals, most of them not at once


@dataclass(frozen=True)
class PassOptions:
    """The examples that a pass reads, and how.

    Args:
        data: the examples; None: the task's training data.
        index: positions (n,) in ``data`` of the examples to read, in that order; None: all of them.
        batch: examples at a time; None: by the size of the network's signals (see ``batching``).
        most: upper limit of examples at a time where ``batch`` is None, set by memory.
        seed: of sampled labels.
        progress: notified of every batch; None: silent.
        what: the name of the pass, as messages and progress show it.
    """

    data: Data | None = None
    index: Sequence[int] | torch.Tensor | None = None
    batch: int | None = None
    most: int | None = None
    seed: int = 0
    progress: Progress | None = None
    what: str = "reading the network"

    def but(self, **changes: Any) -> PassOptions:
        """Return a copy with some options changed.

        Args:
            **changes: by name.

        Returns:
            The new options.
        """
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
    """Run one pass, which updates every statistic with every batch.

    Inside ``processes.across`` every process reads its shard. Batches are proven as the pass goes on (see ``guard``).
    Where some modules' closed-form gradients turn out not to be autograd's, the pass starts again and differentiates
    the model example by example for them, in the same layout.

    Args:
        task: the network and its data.
        space: the parameters, laid out in blocks.
        statistics: updated in place.
        options: which examples are read, and how; None: all training examples.

    Raises:
        NonFiniteError: the model returns NaN or infinite outputs.
        DataError: examples read twice differ.
        StochasticModelError: an example's outputs differ when it is read again in another batch.
        UnsupportedLayerError: no method reproduces autograd's gradients of a module.
        Interrupted: the user stopped the pass.
    """
    options = options or PassOptions()
    data = task.train if options.data is None else options.data
    order = torch.arange(len(data)) if options.index is None else torch.as_tensor(options.index, dtype=torch.long)
    processes = current()
    shared = processes.shares(len(order))
    local = [_empty(s) for s in statistics] if shared else statistics
    if shared:
        order = torch.as_tensor(processes.shard(len(order), order), dtype=torch.long)
    jacobian = any("jacobian" in s.kinds for s in statistics)
    batch, ends = _batches(task, data, statistics, len(order), options)
    reading = _Pass(task, space, local, data, order, jacobian, options)
    fresh = [_cloned(s.state()) for s in local]
    while True:
        try:
            _read(reading, _parts(len(order), batch, ends))
        except _Again as again:
            batch = min(batch, at_once(space, again.cotangents))
        else:
            if not shared or _agreed(processes, space):
                break
        for statistic, state in zip(local, fresh, strict=True):
            statistic.restore(_cloned(state))
    space.finished += 1
    if shared:
        for whole, part in zip(statistics, local, strict=True):
            processes.join(whole, part)


def _batches(
    task: Task, data: Data, statistics: Sequence[Statistic[Any]], total: int, options: PassOptions
) -> tuple[int, int]:
    """(examples at a time, examples of the first and of the last batch; 0 where those are no special ones)."""
    if options.batch is not None:
        return options.batch, 0
    kinds = [Kind.of(k) for s in statistics for k in s.kinds]
    batch = examples_at_once(task, data, max([1, *(OUTPUTS if k.several else k.samples for k in kinds)]))
    batch = batch if options.most is None else min(batch, options.most)
    return batch, min(END, batch) if total >= MANY else 0


def _empty(statistic: Statistic[Any]) -> Statistic[Any]:
    """The same statistic without data."""
    fresh = copy.copy(statistic)
    fresh.restore({})
    return fresh


def _parts(total: int, batch: int, ends: int) -> list[slice]:
    """The slices of the batches; the first and the last hold ``ends`` examples, where that is not 0."""
    edges = [0] if not ends else [0, ends]
    while edges[-1] < total - ends:
        edges.append(min(edges[-1] + batch, total - ends))
    if ends:
        edges.append(total)
    return [slice(a, b) for a, b in pairwise(edges)]


class _Again(Exception):
    """The pass has to start again: gradients of some modules are computed in another way now."""

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
            "stopped by the user",
            where=options.what,
            remedy="run the same command to continue from the last finished stage",
        ) from error
    finally:
        progress.finish(handle)


def _batch(reading: _Pass, part: Batch, capture: Capture, guard: Guard) -> None:
    task = reading.task
    signals = capture.forward(move(part.x, task.device, task.dtype))
    if not bool(torch.isfinite(signals.f).all()):
        bad = int((~torch.isfinite(signals.f.flatten(1)).all(1)).sum())
        raise NonFiniteError(
            f"the model returns NaN or infinite outputs for {bad} of {len(part)} examples",
            where=f"{reading.data.name}, examples {int(part.index[0])}..{int(part.index[-1])}",
            remedy="check those inputs and the model's normalisation for them",
        )
    guard.begin(part, signals)
    part = type(part)(part.index, part.x, move(part.y, task.device))
    view = View(signals, part, task.likelihood, reading.options.seed, reading.jacobian)
    for statistic in reading.statistics:
        statistic.update(view)


def _agreed(processes: Processes, space: ParameterSpace) -> bool:
    """Whether all processes differentiate the same modules example by example; they do from now on."""
    modules = sorted({b.module for b in space.blocks})
    refuted = torch.tensor([float(m in space.refuted) for m in modules], dtype=torch.float64)
    counts = processes.add(refuted)
    space.refuted |= {m for m, count in zip(modules, counts.tolist(), strict=True) if count > 0}
    return bool(((counts == 0) | (counts == processes.size)).all())


def _cloned(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """A copy of a statistic's state: sums are added to in place."""
    return {k: v.clone() for k, v in state.items()}
