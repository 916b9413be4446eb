"""Action along depth: how far the hidden states of a network travel, and whether the layers steer them optimally."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any

import torch
from torch import Tensor, nn

from memspace.action.chain import Chain, find_chain
from memspace.action.control import control
from memspace.action.kinetic import fisher_action, fisher_steps, kinetic_action, shares, steps_of
from memspace.action.readout import LENSES, prediction_action, readouts
from memspace.action.states import States, Tail, states
from memspace.arguments import check_names, typed
from memspace.errors import SettingsError
from memspace.limits import SEED
from memspace.measurement import Measurement, Unmeasured
from memspace.passes.batching import examples_at_once
from memspace.progress import Progress, Silent
from memspace.task.checks import untouched
from memspace.task.data import move
from memspace.task.task import Task

__all__ = ["Depth", "depth_action"]

FIT, CONTROL = 2, 8  # examples the read-outs are fitted on, and the control is judged on, per example measured
LEAST_FIT = 10


@dataclass(frozen=True)
class Depth:
    """What was measured along depth.

    Args:
        blocks: the calls that make the depth, in order; shape: one example's hidden state; found: not named.
        layers: quantity → one measurement per layer (``readout_loss`` and ``left_to_say``: per hidden state, one more;
            ``stationarity``: per module).
    """

    blocks: tuple[str, ...]
    shape: tuple[int, ...]
    found: bool
    measurements: tuple[Measurement, ...]
    unmeasured: tuple[Unmeasured, ...]
    layers: Mapping[str, tuple[Measurement, ...]]

    def value(self, name: str) -> float:
        """The value of a measurement by name; KeyError where it was not measured."""
        for m in self.measurements:
            if m.name == name:
                return m.value
        raise KeyError(f"{name} was not measured along depth")


@typed
def depth_action(
    task: Task | nn.Module,
    train: Any = None,
    *,
    blocks: str | Sequence[str] = (),
    examples: int = 256,
    lens: str = "tuned",
    seed: Annotated[int, SEED] = 0,
    progress: Progress | None = None,
    **more: Any,
) -> Depth:
    """The action of hidden states along depth: kinetic, in the Fisher metric, in predictions, and as optimal control.

    A = (L/2) Σ ‖h_{l+1} − h_l‖² ≥ ½ ‖h_L − h_0‖²; (L/2) Σ δhᵀ J_lᵀ H J_l δh; Fisher–Rao length of layer-wise
    read-outs; H_l = E⟨p_{l+1}, h_{l+1} − h_l⟩ − (λ/2)‖θ_l‖². See ``docs/depth.md``.

    Args:
        task: a task, or a model with ``train`` and further fields of :class:`memspace.Task`.
        blocks: shell patterns over module names, ``!`` excludes; none: the longest chain of modules of one class and
            shape, each fed with what the one before gave. The result says which were taken.
        examples: training examples measured on, at most half of them; read-outs are fitted on twice as many others,
            the control is judged on eight times as many.
        lens: ``tuned`` (an affine map per layer, fitted) or ``logit`` (none).

    Raises:
        TaskError: no blocks, or fewer than two.
        ShapeError: blocks named whose hidden state changes its shape; the stages of constant shape are offered.
        UnsupportedLayerError: blocks that do not feed one another, or change their input in place.
        ValueError: an unknown lens, or fewer than two examples.
    """
    if lens not in LENSES:
        raise SettingsError(
            f"the lens is one of {', '.join(LENSES)}, got {lens!r}", where="depth_action", remedy="give one of these"
        )
    if examples < 2:
        raise SettingsError(
            f"an interval takes at least two examples, got {examples}", where="depth_action", remedy="give more"
        )
    check_names(more, Task, "memspace.depth_action")
    job = task if isinstance(task, Task) else Task(model=task, train=train, **more)
    with untouched(job.model):
        first = job.train.batch(range(min(2, len(job.train))))
        chain = find_chain(job.model, move(first.x, job.device, job.dtype), blocks)
        return _measured(job, chain, examples, lens, seed, progress or Silent())


def _measured(task: Task, chain: Chain, examples: int, lens: str, seed: int, progress: Progress) -> Depth:
    n = len(task.train)
    order = torch.randperm(n, generator=torch.Generator().manual_seed(seed + 17))
    count = min(examples, max(2, n // 2))
    probe, others = order[:count].sort().values, order[count : count + FIT * examples]
    handle = progress.start("action along depth", len(chain) + 3)
    batch = examples_at_once(task)
    s = states(task, chain, task.train, probe, batch)
    steps = steps_of(s.h)
    found, absent = kinetic_action(steps)
    layers = {"share": shares("depth.share", steps.squared, f"{len(probe)} examples")}
    progress.advance(handle)
    squared = fisher_steps(task, chain, s, probe, batch)
    found.append(fisher_action(squared))
    layers["fisher_share"] = shares("depth.fisher_share", squared, f"exact by forward mode, {len(probe)} examples")
    progress.advance(handle)
    made, missing, rows = _predictions(task, chain, s, (probe, others), lens, lambda: progress.advance(handle))
    best = control(task, chain, order[: CONTROL * examples].sort().values, seed=seed, batch=batch)
    progress.finish(handle)
    return Depth(
        tuple(b.title for b in chain.blocks),
        chain.shape,
        chain.found,
        (*found, *made, *best.measurements),
        (*absent, *missing, *best.unmeasured),
        {**layers, **rows, **best.layers},
    )


def _predictions(
    task: Task, chain: Chain, s: States, index: tuple[Tensor, Tensor], lens: str, done: Callable[[], None]
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
