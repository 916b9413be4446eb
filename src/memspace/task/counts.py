"""Counts against a law whose rate is itself uncertain."""

from __future__ import annotations

import numpy as np
import torch
from scipy.special import ndtri_exp
from scipy.stats import nbinom, poisson
from torch import Tensor

__all__ = ["count_residuals"]

SHARP = 1e-8  # variance of the log-rate below which the law is a Poisson law
FAR = 38.0  # standard deviations beyond which a tail rounds to 0


def count_residuals(y: Tensor, f: Tensor, variance: Tensor, u: Tensor) -> Tensor:
    """Φ⁻¹(P(Y < y) + u P(Y = y)), standard normal where y follows the law and u is uniform.

    Args:
        y: counts; f, variance: mean and variance of the log-rate, normal; u: in (0, 1); all of one shape.
    """
    count, rate, v, place = (t.detach().double().cpu().numpy() for t in (y, f.exp(), variance.clamp_min(0), u))
    rate = np.maximum(rate, 1e-300)
    size = 1 / np.expm1(np.clip(v, SHARP, 50))
    mean = rate * np.exp(np.minimum(v, 50) / 2)
    with np.errstate(divide="ignore", invalid="ignore", over="ignore", under="ignore"):
        sharp, spread = poisson(rate), nbinom(size, size / (size + mean))
        below, step, above = (
            np.where(v > SHARP, getattr(spread, name)(at), getattr(sharp, name)(at))
            for name, at in (("cdf", count - 1), ("pmf", count), ("sf", count))
        )
        # The smaller tail keeps its digits.
        low, high = np.log(below + place * step), np.log(above + (1 - place) * step)
        z = np.where(low < high, ndtri_exp(np.minimum(low, 0)), -ndtri_exp(np.minimum(high, 0)))
    return torch.from_numpy(np.clip(np.nan_to_num(z, nan=0.0), -FAR, FAR)).to(f)
