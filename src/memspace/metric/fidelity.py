"""The distance of a representation from the exact metric: its products against exact ones on random vectors."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import torch
from torch import Tensor

from memspace.metric.metric import Estimate, Fidelity, FisherMetric
from memspace.passes.linearise import FisherOperator

__all__ = ["Probe", "exact_probe", "fidelity"]


@dataclass(frozen=True)
class Probe:
    """Random vectors and their exact products, to measure fidelity against.

    Args:
        vectors: v (k, P), float64.
        products: F v (k, P), float64.
        trace: tr F; not a number where unknown.
    """

    vectors: Tensor
    products: Tensor
    trace: Estimate = field(default_factory=lambda: Estimate(math.nan))


def exact_probe(operator: FisherOperator, count: int, seed: int, trace: Estimate) -> Probe:
    """Draw Gaussian probes and multiply them by the exact metric.

    Args:
        operator: exact products F v.
        count: probes drawn.
        seed: of the draw.
        trace: tr F, exact or with its error.

    Returns:
        The probes with their products, float64.
    """
    generator = torch.Generator().manual_seed(seed)
    v = torch.randn(count, operator.size, generator=generator, dtype=torch.float64)
    return Probe(v, operator(v), trace)


def fidelity(metric: FisherMetric, probe: Probe) -> Fidelity:
    """Measure a representation's distance from exact products, √(Σ‖(F̂−F)v‖² / Σ‖Fv‖²) over random probes v.

    Args:
        metric: the representation F̂.
        probe: random vectors with their exact products.

    Returns:
        The relative error with its standard error (delta method), and the ratio of traces.
    """
    difference = (metric.matvec(probe.vectors.double()) - probe.products.double()).square().sum(-1)
    reference = probe.products.double().square().sum(-1)
    ratio = float(difference.sum() / reference.sum())
    count = len(reference)
    # Delta method for the root of a ratio of sums.
    residual = (difference - ratio * reference) / reference.mean()
    se_ratio = float(residual.std() / math.sqrt(count)) if count > 1 else math.nan
    error = math.sqrt(ratio)
    trace_ratio = metric.trace().value / probe.trace.value
    return Fidelity(error, se_ratio / (2 * error) if error > 0 else 0.0, trace_ratio, count)
