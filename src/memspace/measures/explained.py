"""The share of the variance of real targets that predictions explain: free of the targets' unit."""

from __future__ import annotations

import torch
from torch import Tensor

from memspace.measurement import Measurement, from_ratio

__all__ = ["centre_and_spread", "explained_share", "squares"]


def centre_and_spread(y: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation of each output's targets, (C,) both; 1 where all are equal."""
    flat = y.double().reshape(-1, y.shape[-1])
    spread = flat.std(0, correction=0)
    return flat.mean(0), torch.where(spread > 0, spread, torch.ones_like(spread))


def squares(f: Tensor, y: Tensor, centre: Tensor, spread: Tensor) -> tuple[Tensor, Tensor]:
    """Squared error and squared distance from the mean target, per example, in the targets' own spread."""
    left = ((y.double() - f.double()) / spread).square().flatten(1).sum(1)
    return left, ((y.double() - centre) / spread).square().flatten(1).sum(1)


def explained_share(name: str, f: Tensor, y: Tensor, centre: Tensor, spread: Tensor, how: str) -> Measurement:
    """R² = 1 − Σ(y − f)²/Σ(y − ȳ)², ȳ the mean training target."""
    m = from_ratio(name, *squares(f, y, centre, spread), "1", how)
    ends = None if m.interval is None else (1 - m.interval[1], 1 - m.interval[0])
    return Measurement(name, 1 - m.value, "1", how, m.n, ends, "wright1921", m.reliable, m.note)
