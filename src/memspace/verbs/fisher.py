"""``memspace.fisher``: the Fisher metric of a network at its weights."""

from __future__ import annotations

from typing import Unpack

from memspace.metric.fisher import FisherOptions, build
from memspace.metric.metric import FisherMetric
from memspace.passes.space import ParameterSpace
from memspace.passes.verify import verified_space
from memspace.task.task import Task
from memspace.verbs.verb import verb

__all__ = ["fisher"]


@verb
def fisher(
    task: Task,
    space: ParameterSpace | str | None = None,
    representation: str | None = None,
    **options: Unpack[FisherOptions],
) -> FisherMetric:
    """Build the Fisher metric F = E[Jᵀ H J] in one representation.

    Args:
        task: a task, or a model followed by ``train`` and fields of :class:`memspace.Task` by name.
        space: the parameters, as ``memspace.verified_space(task)`` gives them. It may be left out, so that the
            representation comes second: ``memspace.fisher(task, "ekfac")``.
        representation: block, dense, diagonal, dual, ekfac (where none is given), implicit, kfac, nystroem, or one that
            another package adds.
        **options: by name. ``kind``: exact (default), mc (sampled labels), topk (improbable classes merged: never above
            the exact one) or empirical. ``samples``: labels per example for mc. ``lost``: share of the trace that topk
            may leave out. ``memory``: bytes it may hold. ``batch``: examples at a time. ``seed``: random seed of
            sampled labels and probes. ``index``: only these training examples.

    Returns:
        the metric (P, P), nats; its ``coverage`` says what share of the parameters was read, and how.

    Raises:
        SettingsError: an unknown representation or kind.
        MemoryBudgetError: the representation or one example's cotangents do not fit; says what would.
        UnsupportedLayerError: a module's gradients are not autograd's by any way.
    """
    if isinstance(space, str) and representation is None:
        return build(task, space, **options)
    return build(task, space or verified_space(task), representation or "ekfac", **options)
