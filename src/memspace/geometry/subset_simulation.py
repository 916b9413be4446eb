"""The prior mass of a small set by subset simulation (Au & Beck 2001), without a quadratic approximation of the KL."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from memspace.geometry.volume import Volume

__all__ = ["SubsetSimulation", "subset_bits"]

ACCEPTED = 0.35  # share of moves accepted at which such chains move fastest

Divergence = Callable[[Tensor], Tensor]  # rows δ (k, P) → nats (k,)


@dataclass(frozen=True)
class SubsetSimulation:
    """How subset simulation runs.

    Args:
        samples: drawn at each level.
        share: of the samples that are inside the next level.
        chain: steps that move the samples of a level.
        repeats: independent runs, whose spread is the error. It holds what samples of one chain share (Au & Beck's γ),
            which no formula from one run sees well.
        levels: at most; a run that needs more stops at the bits reached, a lower bound.
        seed: of the draws.
    """

    samples: int = 400
    share: float = 0.2
    chain: int = 8
    repeats: int = 4
    levels: int = 60
    seed: int = 0


def subset_bits(
    kl: Divergence, size: int, radius: float, epsilon: float, settings: SubsetSimulation | None = None
) -> Volume:
    """Estimate −log₂ Pr(KL(δ) ≤ ε) over δ ~ N(0, l²I).

    Each level keeps the best share of the samples as threshold and moves them by steps that leave the prior unchanged
    (Cotter et al. 2013), refused where they leave the level.

    Args:
        kl: rows δ (k, P) ↦ (k,) nats.
        size: P.
        radius: l.
        epsilon: ε, nats.
        settings: how the simulation runs.

    Returns:
        The mean of the runs, with its standard error over them.
    """
    settings = settings or SubsetSimulation()
    generator = torch.Generator().manual_seed(settings.seed)
    runs = [_run(kl, size, radius, epsilon, settings, generator) for _ in range(settings.repeats)]
    bits = torch.tensor([run.bits for run in runs], dtype=torch.float64)
    error = float(bits.std()) / len(runs) ** 0.5 if len(runs) > 1 else math.nan
    levels, evaluations = max(run.levels for run in runs), sum(run.evaluations for run in runs)
    return Volume(float(bits.mean()), error, len(runs) - 1, levels, evaluations)


def _run(
    kl: Divergence, size: int, radius: float, epsilon: float, settings: SubsetSimulation, generator: torch.Generator
) -> Volume:
    """One descent through the levels."""
    samples = settings.samples
    z = torch.randn(samples, size, generator=generator, dtype=torch.float64)
    value = kl(radius * z)
    evaluations, deepest, log_mass, step = samples, 0, 0.0, 0.5
    for level in range(settings.levels):
        deepest = level
        order = value.argsort()
        inside = max(1, int(settings.share * samples))
        threshold = float(value[order[inside - 1]])
        if threshold <= epsilon:
            log_mass += math.log(float((value <= epsilon).double().mean()))
            break
        log_mass += math.log(inside / samples)
        again = order[:inside].repeat(-(-samples // inside))[:samples]
        z, value = z[again], value[again]
        for _ in range(settings.chain):
            fresh = torch.randn(samples, size, generator=generator, dtype=torch.float64)
            moved = math.sqrt(1 - step**2) * z + step * fresh
            there = kl(radius * moved)
            evaluations += samples
            accepted = there <= threshold
            z, value = torch.where(accepted.unsqueeze(1), moved, z), torch.where(accepted, there, value)
            step = min(1.0, max(1e-3, step * math.exp(float(accepted.double().mean()) - ACCEPTED)))
    return Volume(-log_mass / math.log(2), levels=deepest + 1, evaluations=evaluations)
