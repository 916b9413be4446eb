"""The Fisher metric of a task, by the name of a representation."""

from __future__ import annotations

from typing import Annotated, TypedDict, Unpack

from torch import Tensor

from memspace.arguments import typed
from memspace.errors import SettingsError
from memspace.limits import BYTES, COUNT, DRAW, SHARE
from memspace.metric.context import BuildContext
from memspace.metric.metric import FisherMetric
from memspace.metric.representation import check_need, representation_named
from memspace.passes.coverage import coverage
from memspace.passes.kinds import Kind
from memspace.passes.space import ParameterSpace
from memspace.passes.verify import fitting_space, verified_space
from memspace.positions import as_index
from memspace.task.task import Task

__all__ = ["FisherOptions", "build"]


class FisherOptions(TypedDict, total=False):
    """Options of :func:`build`; ``DEFAULTS`` holds their defaults.

    Args:
        kind: exact, mc, topk or empirical: which F is built.
        samples: labels per example, for mc.
        lost: share of the trace of every position's output information that topk may leave out.
        memory: bytes it may hold.
        batch: examples at a time; None: by the size of the network's signals.
        seed: of sampled labels and probes.
        index: positions of the training examples to read; None: all.
    """

    kind: str
    samples: Annotated[int, COUNT]
    lost: Annotated[float, SHARE]
    memory: Annotated[int, BYTES]
    batch: Annotated[int | None, COUNT]
    seed: Annotated[int, DRAW]
    index: Tensor | None


DEFAULTS: FisherOptions = {
    "kind": "exact",
    "samples": 1,
    "lost": 0.01,
    "memory": 4 * 2**30,
    "batch": None,
    "seed": 0,
    "index": None,
}


@typed
def build(
    task: Task,
    space: ParameterSpace | str,
    representation: str | None = None,
    **options: Unpack[FisherOptions],
) -> FisherMetric:
    """Build the Fisher metric of a task at its weights in one representation.

    Args:
        task: the network and its data.
        space: the parameters; ``memspace.verified_space(task)`` fits every network. It may be left out, so that the
            representation comes second: ``memspace.fisher(task, "ekfac")``.
        representation: block, dense, diagonal, dual, ekfac, implicit, kfac, nystroem, or one that another package adds.
        **options: by name. ``kind``: exact (default), mc (sampled labels), topk (improbable classes merged: never above
            the exact one) or empirical. Products (implicit, nystroem) are exact or empirical: their cost does not grow
            with the number of classes. ``samples``: labels per example for mc (1); from 2 on the trace has a standard
            error. ``lost``: share of the trace of every position's output information that topk may leave out (0.01).
            ``memory``: bytes it may hold (4 GiB). ``batch``: examples at a time (by the size of the network's signals).
            ``seed``: of sampled labels and probes (0). ``index``: only these training examples (all).

    Returns:
        The metric (P, P), nats; its ``coverage`` says what share of the parameters was read, and how.

    Raises:
        SettingsError: an unknown representation or kind, or none.
        MemoryBudgetError: the representation or one example's cotangents do not fit; the remedy names what would.
        UnsupportedLayerError: no method reproduces autograd's gradients of a module.
    """
    name = space if isinstance(space, str) else representation
    if name is None or (isinstance(space, str) and representation is not None):
        what = "no representation is given" if name is None else f"{space!r} is given where the parameters belong"
        raise SettingsError(what, where="memspace.fisher", remedy='call memspace.fisher(task, space, "ekfac")')
    chosen = representation_named(name)
    context = _context(task, verified_space(task) if isinstance(space, str) else space, {**DEFAULTS, **options})
    check_need(chosen, context)
    metric = chosen.build(context)
    covered = coverage(context.space, sum(p.numel() for p in task.model.parameters()), name)
    object.__setattr__(metric, "coverage", covered)  # an attribute, no field, of a frozen dataclass
    return metric


def _context(task: Task, space: ParameterSpace, options: FisherOptions) -> BuildContext:
    index = options["index"]
    return BuildContext(
        task,
        fitting_space(task, space),
        Kind(options["kind"], options["samples"], options["lost"] if options["kind"] == "topk" else 0.0),
        options["memory"],
        options["batch"],
        options["seed"],
        None if index is None else as_index(index, len(task.train), "index"),
    )
