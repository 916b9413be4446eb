"""F by its products alone: implicit, and the Nyström approximation from a few of them."""

from __future__ import annotations

import torch

from memspace.metric.context import BuildContext
from memspace.metric.implicit import Implicit
from memspace.metric.metric import FisherMetric
from memspace.metric.nystroem import nystroem
from memspace.metric.representation import MemoryNeed, Representation, representation

__all__ = ["AsImplicit", "AsNystroem"]

RANK = 128  # of the Nyström representation, unless memory holds less
VECTOR_BYTES = 32  # per parameter, of one vector of the basis with its products


@representation
class AsImplicit(Representation):
    """Exact products; functions of F by Lanczos, traces by probes, with their errors."""

    name = "implicit"

    def build(self, context: BuildContext) -> FisherMetric:
        """Build the operator; every product is a pass over the data."""
        return Implicit(context.operator(2), context.space.size, seed=context.seed, kind=str(context.kind))


@representation
class AsNystroem(Representation):
    """A low-rank matrix below F, with a bound on the difference."""

    name = "nystroem"

    def need(self, context: BuildContext) -> MemoryNeed:
        """Return the memory of one vector of the basis, the least it can do with."""
        return MemoryNeed(VECTOR_BYTES * context.space.size, "a Nyström basis of one vector")

    def build(self, context: BuildContext) -> FisherMetric:
        """Multiply F by random vectors, as many as memory holds and no more than ``RANK``."""
        size, rounding = context.space.size, torch.finfo(context.task.dtype).eps
        rank = min(RANK, size, context.memory // (VECTOR_BYTES * size))
        kind = str(context.kind)
        return nystroem(context.operator(4), size, rank, seed=context.seed, kind=kind, rounding=rounding)
