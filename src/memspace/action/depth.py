"""Action along depth: how far the hidden states of a network travel, and whether the layers steer them optimally."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from memspace.action.chain import Chain, find_chain
from memspace.action.control import control
from memspace.action.kinetic import fisher_action, fisher_steps, kinetic_action, shares, steps_of
from memspace.action.readout import LENSES, prediction_action, readouts
from memspace.action.states import HiddenStates, Tail, states
from memspace.display import Columns, Shown
from memspace.errors import SettingsError
from memspace.measurement import Measurement, Unmeasured
from memspace.passes.batching import examples_at_once
from memspace.progress import Progress, Silent
from memspace.task.checks import untouched
from memspace.task.data import move
from memspace.task.task import Task

__all__ = ["Depth", "depth_action"]

FIT, CONTROL = 2, 8  # examples the read-outs are fitted on, and the control is judged on, per example measured
LEAST_FIT = 10


@dataclass(frozen=True, repr=False)
class Depth(Shown):
    """What was measured along depth.

    Args:
        blocks: the calls that make the depth, in order.
        shape: one example's hidden state.
        found: no pattern named the blocks.
        measurements: of the whole depth.
        unmeasured: what could not be measured, with the reason.
        layers: quantity → one measurement per layer (``readout_loss`` and ``left_to_say``: per hidden state, one more;
            ``stationarity``: per module).
    """

    blocks: tuple[str, ...]
    shape: tuple[int, ...]
    found: bool
    measurements: tuple[Measurement, ...]
    unmeasured: tuple[Unmeasured, ...]
    layers: Mapping[str, tuple[Measurement, ...]]

    def _title(self) -> str:
        return f"{len(self.blocks)} blocks ({'found' if self.found else 'named'}), hidden state {self.shape}"

    def _tables(self) -> Mapping[str, Callable[[], Columns]]:
        return {"layers": self._rows}

    def _rows(self) -> Columns:
        """A row a block (and one for the output where a quantity has one more); absent values are NaN."""
        count = max((len(row) for row in self.layers.values()), default=0)
        blocks = [*self.blocks, *["(output)"] * max(0, count - len(self.blocks))]
        padded = {
            name: [*(m.value for m in row), *[math.nan] * (len(blocks) - len(row))] for name, row in self.layers.items()
        }
        return {"block": blocks} | padded

    def value(self, name: str) -> float:
        """Look a measurement's value up.

        Args:
            name: of the measurement, for example ``"depth.ratio"``.

        Returns:
            The number.

        Raises:
            KeyError: it was not measured.
        """
        for m in self.measurements:
            if m.name == name:
                return m.value
        raise KeyError(f"{name} was not measured along depth")


def depth_action(
    task: Task,
    *,
    blocks: str | Sequence[str] = (),
    examples: int = 256,
    lens: str = "tuned",
    seed: int = 0,
    progress: Progress | None = None,
) -> Depth:
    """Measure the action of hidden states along depth; see :func:`memspace.depth`, which takes a model with data too.

    Args:
        task: the model, its law and data.
        blocks: shell patterns over module names (``!`` excludes); without any, the longest chain found.
        examples: number of training examples measured.
        lens: ``tuned`` or ``logit``, how layers are read out.
        seed: of the choice of examples.
        progress: told of the work as it goes.

    Returns:
        Measurements of the whole depth and of each layer.

    Raises:
        SettingsError: an unknown lens, or fewer than two examples.
        TaskError: the blocks make no chain.
        ShapeError: the shape changes along the blocks named.
        UnsupportedLayerError: a block is not fed with what the one before gave, or works in place.
    """
    where = "memspace.depth"
    if lens not in LENSES:
        what = f"the lens is one of {', '.join(LENSES)}, got {lens!r}"
        raise SettingsError(what, where=where, remedy="give one of these")
    if examples < 2:
        what = f"an interval takes at least two examples, got {examples}"
        raise SettingsError(what, where=where, remedy="give more")
    with untouched(task.model):
        first = task.train.batch(range(min(2, len(task.train))))
        chain = find_chain(task.model, move(first.x, task.device, task.dtype), blocks)
        return _measured(task, chain, examples, lens, seed, progress or Silent())


def _measured(task: Task, chain: Chain, examples: int, lens: str, seed: int, progress: Progress) -> Depth:
    n = len(task.train)
    order = torch.randperm(n, generator=torch.Generator().manual_seed(seed + 17))
    count = min(examples, max(2, n // 2))
    probe, others = order[:count].sort().values, order[count : count + FIT * examples]
    handle = progress.start("action along depth", len(chain) + 3)
    batch = examples_at_once(task)
    s = states(task, chain, task.train, probe, batch)
    steps = steps_of(s.h)
    kinetic, absent = kinetic_action(steps)
    layers = {"share": shares("depth.share", steps.squared)}
    progress.advance(handle)
    squared = fisher_steps(task, chain, s, probe, batch)
    kinetic.append(fisher_action(squared))
    layers["fisher_share"] = shares("depth.fisher_share", squared)
    progress.advance(handle)
    made, missing, rows = _predictions(task, chain, s, (probe, others), lens, lambda: progress.advance(handle))
    best = control(task, chain, order[: CONTROL * examples].sort().values, seed=seed, batch=batch)
    progress.finish(handle)
    return Depth(
        tuple(b.title for b in chain.blocks),
        chain.shape,
        chain.found,
        (*kinetic, *made, *best.measurements),
        (*absent, *missing, *best.unmeasured),
        {**layers, **rows, **best.layers},
    )


def _predictions(
    task: Task, chain: Chain, s: HiddenStates, index: tuple[Tensor, Tensor], lens: str, done: Callable[[], None]
) -> tuple[list[Measurement], list[Unmeasured], dict[str, tuple[Measurement, ...]]]:
    probe, others = index
    if lens == "tuned" and len(others) < LEAST_FIT:
        why = f"only {len(others)} training examples are left to fit the read-outs on"
        remedy = "measure on fewer examples, or read out without a map: lens='logit'"
        return [], [Unmeasured("depth.prediction_length", why, remedy)], {}
    fit = states(task, chain, task.train, others) if lens == "tuned" else s
    tails = tuple(
        Tail(task, chain, move(task.train.batch(part).x, task.device, task.dtype))
        for part in (probe, others if lens == "tuned" else probe)
    )
    read = readouts(task, chain, s, fit, (tails[0], tails[1]), lens, done)
    if isinstance(read, Unmeasured):
        return [], [read], {}
    return prediction_action(task, s, read)
