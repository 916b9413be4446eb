"""The engines that use the training, by name: ``unrolled``, ``segments``, ``ensemble`` and ``ensemble:ENGINE``."""

from __future__ import annotations

from dataclasses import replace

from memspace.attribution.ensemble import Base, ensemble
from memspace.attribution.influence import influence
from memspace.attribution.prepared import Goal
from memspace.attribution.question import Queries
from memspace.attribution.result import Influence
from memspace.attribution.segments import segmented
from memspace.attribution.settings import InfluenceSettings
from memspace.attribution.unrolled import Unrolled, unrolled
from memspace.errors import TaskError
from memspace.progress import Progress
from memspace.task.task import Task

__all__ = ["TRAINING_ENGINES", "attribute", "uses_training"]

TRAINING_ENGINES = ("unrolled", "segments", "ensemble")


def uses_training(engine: str) -> bool:
    """Tell whether an engine is one of this module.

    Args:
        engine: its name.

    Returns:
        True for those of ``TRAINING_ENGINES``, alone or followed by another engine's name.
    """
    return engine.partition(":")[0] in TRAINING_ENGINES


def attribute(
    task: Task,
    queries: Queries = None,
    *,
    engine: str = "unrolled",
    target: Goal = "loss",
    networks: int = 5,
    training: Unrolled | None = None,
    settings: InfluenceSettings | None = None,
    progress: Progress | None = None,
) -> Influence:
    """Score by one of ``TRAINING_ENGINES``; queries and target as for every engine.

    Args:
        task: the network, its data and training.
        queries: as for :func:`memspace.influence`.
        engine: ``unrolled``, ``segments``, ``ensemble`` (of unrolled) or ``ensemble:`` and any engine's name.
        target: as for :func:`memspace.influence`.
        networks: of an ensemble, the first of the task's own seed.
        training: seed and point of the gradient through the training. An ensemble of a metric engine takes its point
            from networks: with ``left_out`` s each is trained without a share s of the data.
        settings: of the metric, where one is used.
        progress: told what is being done.

    Returns:
        scores (Q, N) in the outcome's unit.

    Raises:
        TaskError: an unknown engine; else as the engine.
    """
    training, settings = training or Unrolled(), settings or InfluenceSettings()
    name, _, inner = engine.partition(":")
    if name == "unrolled" and not inner:
        return unrolled(task, queries, target=target, settings=training, progress=progress)
    if name == "segments" and not inner:
        return segmented(task, queries, target=target, settings=settings, progress=progress)
    if name != "ensemble":
        raise TaskError(
            f"there is no engine {engine!r}",
            where="engine",
            remedy=f"use one of {', '.join(TRAINING_ENGINES)}, or ensemble:ENGINE",
        )
    seeds = [training.seed + m for m in range(networks)]
    base = _base(queries, inner or "unrolled", target, training, settings)
    # The gradient through the training stands at mean weight 1 − s with all examples in it.
    without = training.left_out if inner not in ("", "unrolled") else 0.0
    return ensemble(task, base, seeds=seeds, left_out=without, progress=progress)


def _base(queries: Queries, inner: str, target: Goal, training: Unrolled, settings: InfluenceSettings) -> Base:
    """An ensemble's engine; what costs retraining (the check, the damping) is done for the first network only."""
    first: list[Influence] = []

    def of(task: Task, seed: int) -> Influence:
        if inner == "unrolled":
            checks = 0 if first else training.checks
            scored = unrolled(task, queries, target=target, settings=replace(training, seed=seed, checks=checks))
        else:
            damping = first[0].damping if first else None
            scored = influence(task, queries, engine=inner, target=target, damping=damping, settings=settings)
        first.append(scored)
        return scored

    return of
