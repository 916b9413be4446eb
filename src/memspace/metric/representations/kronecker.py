"""F by Kronecker blocks: KFAC (Martens & Grosse 2015) and EKFAC (George et al. 2018)."""

from __future__ import annotations

from memspace.metric.context import BuildContext
from memspace.metric.ekfac import EkfacPasses, kronecker_of
from memspace.metric.metric import FisherMetric
from memspace.metric.representation import Representation, representation

__all__ = ["AsEkfac", "AsKfac"]


def _passes(context: BuildContext) -> EkfacPasses:
    """Both passes with the same sampled labels, so that EKFAC is a projection of one matrix."""
    return EkfacPasses(context.task, context.space, str(context.kind), context.options(), redraw=False)


@representation
class AsKfac(Representation):
    """Products of Kronecker factors: biased between blocks and inside them."""

    name = "kfac"

    def build(self, context: BuildContext) -> FisherMetric:
        """Read the factors in one pass."""
        eigenbases = _passes(context).factored()
        return kronecker_of(context.blocks, eigenbases.bases, eigenbases.products, False, str(context.kind))


@representation
class AsEkfac(Representation):
    """Corrected eigenvalues in the factors' eigenbases: biased, with the trace of F."""

    name = "ekfac"

    def build(self, context: BuildContext) -> FisherMetric:
        """Read factors and eigenvalues in two passes."""
        passes = _passes(context)
        return passes.corrected(passes.factored(), *context.spread).metric
