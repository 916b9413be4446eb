"""``memspace.attribute``: influence by engines that follow the training, or repeat it."""

from __future__ import annotations

from typing import Annotated

from memspace.attribution.attribution import attribute as attribute_of_task
from memspace.attribution.prepared import Goal
from memspace.attribution.question import Queries
from memspace.attribution.result import Influence
from memspace.attribution.settings import InfluenceSettings
from memspace.attribution.unrolled import Unrolled
from memspace.limits import COUNT
from memspace.progress import Progress
from memspace.task.task import Task
from memspace.verbs.verb import verb

__all__ = ["attribute"]


@verb
def attribute(
    task: Task,
    queries: Queries = None,
    *,
    engine: str = "unrolled",
    target: Goal = "loss",
    networks: Annotated[int, COUNT] = 5,
    unrolled: Unrolled | None = None,
    settings: InfluenceSettings | None = None,
    progress: Progress | None = None,
) -> Influence:
    """Estimate influence through the training itself; see ``docs/attribution.md``.

    Args:
        task: a task with ``training`` (or ``run``, or ``refit``), or a model followed by ``train``, ``test`` and fields
            of :class:`memspace.Task` by name.
        queries: as for :func:`memspace.influence`.
        engine: ``unrolled``, ``segments``, ``ensemble`` (of unrolled) or ``ensemble:`` and any engine's name.
        target: the outcome, as for :func:`memspace.influence`.
        networks: of an ensemble, the first of the task's own seed.
        unrolled: seed and point of the gradient through the training. An ensemble of a metric engine takes its point
            from networks: with ``left_out`` s each is trained without a share s of the data.
        settings: of the metric, where one is used.
        progress: where the work reports.

    Returns:
        scores (Q, N) in the outcome's unit; of ensembles their mean, with its standard error.

    Raises:
        TaskError: an unknown engine, or a task that the engine cannot serve.
        MemspaceError: other bad input, in one sentence.
    """
    return attribute_of_task(
        task,
        queries,
        engine=engine,
        target=target,
        networks=networks,
        training=unrolled,
        settings=settings,
        progress=progress,
    )
