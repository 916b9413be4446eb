"""Influence unrolled in segments over the recorded checkpoints of one training, by the metric at each.

After SOURCE (Bae et al. 2024): within a segment the network moves by gradient descent on a quadratic with the curvature
F of a checkpoint in it, for a learning-rate time τ. Going back from the end, v = ∇q(θ_T),

    example i:  score += −(1/N) ⟨r(F) v, ∇ℓ_i⟩,  r(x) = (1 − e^{−τ(x + γ)}) / (x + γ)
    then        v ← e^{−τ(F + γ)} v

with γ the training's decay. Nothing is retrained and no damping is chosen: the time of the training damps. Cheaper than
the gradient through the whole training and needs no repeatable one, but F is an approximation and so are its segments.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor

from memspace.attribution.engines import prepare
from memspace.attribution.prepared import Goal, checked_target, score_pass
from memspace.attribution.question import Queries, ask, queries_of
from memspace.attribution.result import Influence
from memspace.attribution.settings import InfluenceSettings
from memspace.errors import TaskError
from memspace.measurement import Measurement
from memspace.passes.verify import checked_space
from memspace.progress import Progress, Silent
from memspace.task.checks import holding
from memspace.task.task import Run, Task

__all__ = ["Segment", "cut", "segmented"]

SOURCE = "bae2024"


@dataclass(frozen=True)
class Segment:
    """A stretch of a training.

    Args:
        state: place of its checkpoint in the recording.
        time: its learning-rate time τ.
    """

    state: int
    time: float


def cut(run: Run, count: int) -> tuple[Segment, ...]:
    """Cut a training into stretches of equal learning-rate time, each with the recorded state nearest its middle.

    Args:
        run: the recorded training.
        count: stretches at most; those that share their nearest state are one.

    Returns:
        the stretches in order.
    """
    whole = run.time[-1]
    edges = [whole * k / count for k in range(count + 1)]
    pieces: list[Segment] = []
    for low, high in pairwise(edges):
        near = min(range(len(run.time)), key=lambda i: abs(run.time[i] - (low + high) / 2))
        if pieces and pieces[-1].state == near:
            pieces[-1] = Segment(near, pieces[-1].time + high - low)
        else:
            pieces.append(Segment(near, high - low))
    return tuple(pieces)


def segmented(
    task: Task,
    queries: Queries = None,
    *,
    target: Goal = "loss",
    engine: str = "ekfac",
    count: int = 6,
    momentum: float | None = None,
    settings: InfluenceSettings | None = None,
    progress: Progress | None = None,
) -> Influence:
    """Score what each training example's presence added to each query's outcome over the recorded training.

    Bae et al. 2024 (SOURCE). Biased: the metric's approximation, constant within a segment.

    Args:
        task: with its ``run``.
        queries: as for :func:`memspace.attribution.influence.influence`.
        target: as for :func:`memspace.attribution.influence.influence`.
        engine: the metric of every segment, ``ekfac`` or ``dual``.
        count: segments at most.
        momentum: μ; the learning-rate time is divided by 1 − μ. None: the recipe's, 0 where there is none.
        settings: budget and accuracy of the metric.
        progress: told of every segment.

    Returns:
        scores (Q, N) in the outcome's unit.

    Raises:
        TaskError: no training was recorded, or one of no length.
    """
    begun = time.perf_counter()
    settings, progress = settings or InfluenceSettings(), progress or Silent()
    run = task.run
    if run is None or len(run.states) < 2 or run.time[-1] <= 0 or count < 1:
        raise TaskError(
            "segments need the recorded checkpoints of a training",
            where=f"task {task.name}",
            remedy="give the Task run=Run(states, time, step), or use another engine",
        )
    if engine not in ("ekfac", "dual"):
        raise TaskError(f"segments have no metric {engine!r}", where="engine", remedy="use ekfac or dual")
    space = checked_space(task)
    recipe = task.training.recipe if task.training is not None else None
    adam = recipe is not None and recipe.optimiser == "adam"
    if momentum is None:
        momentum = recipe.momentum if recipe is not None and not adam else 0.0
    decay = task.decay or 0.0
    data, index = queries_of(task, queries)
    aim = checked_target(task, target)
    with holding(task.model, run.states[-1]):
        asked = ask(task, space, aim, data, index, progress=progress)
    v = asked.gradients
    scores = torch.zeros(len(v), len(task.train), dtype=v.dtype, device=v.device)
    pieces = cut(run, count)
    for piece in progress.track(reversed(pieces), "segments of the training", len(pieces)):
        tau = piece.time / (1 - momentum)
        with holding(task.model, run.states[piece.state]):
            metric = prepare(task, space, engine, settings, progress).metric
            x = metric.apply(filtered(tau, decay), v) / len(task.train)
            scores += score_pass(task, space, x, batch=settings.batch, progress=progress)["scores"].t()
        v = metric.apply(lambda e, tau=tau: torch.exp(-tau * (e + decay)), v)  # type: ignore[misc]
    note = "the training used Adam, whose steps are not those of gradient descent" if adam else ""
    left = float(torch.linalg.vector_norm(v) / torch.linalg.vector_norm(asked.gradients).clamp_min(1e-300))
    remembered = "norm of what is left of the outcomes' gradients at the initialisation"
    return Influence(
        scores=scores,
        engine=f"segments, {engine}",
        target=aim.name,
        unit=aim.unit,
        queries=asked.queries,
        outcome=asked.outcome,
        damping_rule=f"none: {len(pieces)} segments of the training, learning-rate time {run.time[-1]:.3g} in all",
        reliable=not adam,
        note=note,
        diagnostics=(Measurement("segments.remembered", left, "1", remembered, len(v), None, SOURCE),),
        seconds=time.perf_counter() - begun,
    )


def filtered(tau: float, decay: float) -> Callable[[Tensor], Tensor]:
    """Make r(x) = (1 − e^{−τ(x + γ)}) / (x + γ), τ where x + γ = 0.

    Args:
        tau: learning-rate time τ.
        decay: γ.

    Returns:
        the function of eigenvalues x.
    """

    def of(x: Tensor) -> Tensor:
        damped = x + decay
        small = damped * tau < math.sqrt(torch.finfo(x.dtype).eps)
        return torch.where(small, torch.full_like(x, tau), -torch.expm1(-tau * damped) / damped.clamp_min(1e-300))

    return of
