"""The spectrum of F from products alone: stochastic Lanczos quadrature with a confidence band."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from memspace.intervals import margin
from memspace.metric.krylov import Operator, lanczos, mean_and_error, rademacher
from memspace.metric.metric import Estimate, SpectralFunction

__all__ = ["Band", "Density", "spectral_density"]

BASES = 2**27  # numbers of Lanczos bases held at a time (1 GiB)


@dataclass(frozen=True)
class Band:
    """How many eigenvalues are at or above each level, with pointwise confidence limits.

    Args:
        levels: (L,).
        count: (L,) estimates.
        low: (L,) lower limits.
        high: (L,) upper limits.
    """

    levels: Tensor
    count: Tensor
    low: Tensor
    high: Tensor


@dataclass(frozen=True)
class Density:
    """Quadratures of several probes: the spectrum as weighted nodes, with the spread over probes as its error.

    Args:
        nodes: of every probe, (steps,).
        weights: of every probe, (steps,), summing to 1.
        size: P.
    """

    nodes: tuple[Tensor, ...]
    weights: tuple[Tensor, ...]
    size: int

    def integrate(self, fn: SpectralFunction) -> Estimate:
        """Estimate tr fn(F), with its standard error over probes.

        Args:
            fn: elementwise function of eigenvalues.

        Returns:
            The trace over all P eigenvalues.
        """
        values = [self.size * float((w * fn(x)).sum()) for x, w in zip(self.nodes, self.weights, strict=True)]
        mean, error = mean_and_error(values)
        return Estimate(mean, error, len(values), len(values) - 1)

    def cumulative(self, levels: Tensor, confidence: float = 0.95) -> Band:
        """Count the eigenvalues at or above every level.

        The band is pointwise: Student's t over probes at each level alone, cut to [0, P]. It covers the scatter of
        the probes, not the quadrature's resolution: within a node's distance of a level the count is smoothed.

        Args:
            levels: (L,).
            confidence: coverage of the band.

        Returns:
            The counts with their band.

        Raises:
            ValueError: fewer than two probes, or a confidence outside (0, 1).
        """
        if len(self.nodes) < 2 or not 0 < confidence < 1:
            raise ValueError(f"a band needs two probes and a confidence in (0, 1), got {len(self.nodes)}, {confidence}")
        levels = levels.double()
        above = torch.stack(
            [
                self.size * ((x >= levels.unsqueeze(1)).double() @ w)
                for x, w in zip(self.nodes, self.weights, strict=True)
            ]
        )
        count = len(above)
        half = margin(above.std(0) / math.sqrt(count), count - 1, confidence)
        mean = above.mean(0)
        return Band(levels, mean, (mean - half).clamp(0, self.size), (mean + half).clamp(0, self.size))


def spectral_density(operator: Operator, size: int, *, probes: int, steps: int, seed: int) -> Density:
    """Estimate the spectrum by stochastic Lanczos quadrature (Ubaru et al. 2017), as many probes at once as fit.

    Args:
        operator: v ↦ A v on stacks (k, P), positive semi-definite.
        size: P.
        probes: Rademacher vectors, one quadrature each.
        steps: of Lanczos; nodes of every quadrature at most.
        seed: of the probes.

    Returns:
        The quadratures.
    """
    generator = torch.Generator().manual_seed(seed)
    steps = min(steps, size)
    runs = []
    for part in torch.split(rademacher(probes, size, generator), max(1, BASES // (steps * size))):
        runs.extend(lanczos(operator, part, steps))
    return Density(tuple(t.nodes for t in runs), tuple(t.weights for t in runs), size)
