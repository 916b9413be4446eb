"""The paths of one network of the zoo: its recorded training, and its hidden states along depth; the cheap parts."""

from __future__ import annotations

import copy
from dataclasses import replace

import torch

from memspace.action.chain import find_chain
from memspace.action.depth import Depth
from memspace.action.kinetic import fisher_action, fisher_steps, kinetic_action, shares, steps_of
from memspace.action.slope import MAX_ROWS
from memspace.action.states import states
from memspace.action.training import LEAST_PROBE, TrainingAction, training_action
from memspace.attempt import attempt
from memspace.measurement import Unmeasured
from memspace.passes.batching import examples_at_once
from memspace.passes.outputs import outputs
from memspace.passes.space import ParameterSpace
from memspace.progress import Silent
from memspace.task.data import move
from memspace.task.task import Run, Task
from memspace.value import Absent
from memspace.zoo.measuring_settings import ZooSettings

__all__ = ["depth_of", "path_of"]

EXCESS = ("action.excess", "action.spent_over_bought", "action.excess_learning_rate_time")
LINE = 17  # points on the straight line in the weights
FOLLOWED = 4  # examples whose predictions say what is noise of the path, for one that the slope is computed on


def path_of(task: Task, space: ParameterSpace, settings: ZooSettings) -> TrainingAction | Absent:
    """Follow the recorded training through the predictions of some training examples.

    The slope of the excess costs a Gram matrix a checkpoint, so that the excess is read on some of them.

    Args:
        task: the network, its data and its recorded training.
        space: the parameters, laid out in blocks.
        settings: of the zoo.

    Returns:
        lengths and action, or why there are none.
    """
    first, _ = outputs(task, task.train, index=torch.tensor([0]))
    sloped = settings.sloped and MAX_ROWS // first.numel() >= LEAST_PROBE
    # Where there are too many outputs for a slope, the path says so itself.
    whole = _followed(task, space, settings, settings.followed, 0 if sloped else settings.sloped, LINE)
    if isinstance(whole, Absent) or task.run is None or not sloped:
        return whole
    thinned = copy.copy(task)  # a new Task would read its data again
    object.__setattr__(thinned, "run", _thinned(task.run, settings.checkpoints))
    spent = _followed(thinned, space, settings, FOLLOWED * settings.sloped, settings.sloped, 0)
    measurements = [m for m in whole.measurements if m.name not in EXCESS]
    unmeasured = [u for u in whole.unmeasured if u.name not in EXCESS]
    if isinstance(spent, Absent):
        unmeasured.append(Unmeasured(EXCESS[0], spent.reason, spent.remedy))
    else:
        measurements += (m for m in spent.measurements if m.name in EXCESS)
        unmeasured += (u for u in spent.unmeasured if u.name in EXCESS)
    return replace(whole, measurements=tuple(measurements), unmeasured=tuple(unmeasured))


def _thinned(run: Run, most: int) -> Run:
    """At most so many checkpoints, the first and the last among them, evenly by their number."""
    count = len(run.states)
    if count <= most:
        return run
    at = [round(k * (count - 1) / (most - 1)) for k in range(most)]
    time, step = tuple(run.time[k] for k in at), tuple(run.step[k] for k in at)
    return replace(run, states=[run.states[k] for k in at], time=time, step=step)


def _followed(
    task: Task, space: ParameterSpace, settings: ZooSettings, examples: int, sloped: int, line: int
) -> TrainingAction | Absent:
    training = attempt(
        "action",
        lambda: training_action(
            task,
            probe=examples,
            slope_probe=sloped,
            line=line,
            seed=settings.seed,
            progress=Silent(),
            space=space,
            memory=settings.memory,
        ),
    )
    if isinstance(training, Unmeasured):
        return Absent(training.reason, training.remedy)
    if not training.measurements:
        return Absent(training.unmeasured[0].reason, training.unmeasured[0].remedy)
    return training


def depth_of(task: Task, settings: ZooSettings) -> Depth | Absent:
    """Read the kinetic action of the hidden states, and as far as the outputs feel it; no read-outs, no control.

    Args:
        task: the network and its data.
        settings: of the zoo.

    Returns:
        the action along depth, or why the network has none: no two blocks of one shape that feed one another.
    """
    depth = attempt("depth", lambda: _depth(task, settings))
    return Absent(depth.reason, depth.remedy) if isinstance(depth, Unmeasured) else depth


def _depth(task: Task, settings: ZooSettings) -> Depth:
    n = len(task.train)
    order = torch.randperm(n, generator=torch.Generator().manual_seed(settings.seed + 17))
    index = order[: min(settings.deep, n)].sort().values
    first = task.train.batch(range(min(2, n)))
    chain = find_chain(task.model, move(first.x, task.device, task.dtype))
    batch = examples_at_once(task)
    s = states(task, chain, task.train, index, batch)
    steps = steps_of(s.h)
    kinetic, absent = kinetic_action(steps)
    squared = fisher_steps(task, chain, s, index, batch)
    layers = {"share": shares("depth.share", steps.squared), "fisher_share": shares("depth.fisher_share", squared)}
    titles = tuple(b.title for b in chain.blocks)
    return Depth(titles, chain.shape, chain.found, (*kinetic, fisher_action(squared)), tuple(absent), layers)
