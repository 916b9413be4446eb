"""Rank correlation over examples with a bootstrap interval."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.stats import rankdata

__all__ = ["bootstrap_median", "spearman"]

DRAWS = 1000


def spearman(a: ArrayLike, b: ArrayLike, seed: int = 0) -> tuple[float, tuple[float, float] | None]:
    """Compute Spearman's ρ and its 95% percentile bootstrap interval over examples.

    Infinite values rank together at their end: an example that was never reached is farther than all others.

    Args:
        a: (n,) numbers.
        b: (n,) numbers.
        seed: random seed of the bootstrap.

    Returns:
        ρ and the interval; NaN without an interval where one side is constant.
    """
    x, y = np.asarray(a, float), np.asarray(b, float)
    index = np.random.default_rng(seed).integers(0, len(x), (DRAWS, len(x)))
    with np.errstate(invalid="ignore", divide="ignore"):
        value = float(_correlation(rankdata(x[None], axis=1), rankdata(y[None], axis=1))[0])
        drawn = _correlation(rankdata(x[index], axis=1), rankdata(y[index], axis=1))
    drawn = drawn[np.isfinite(drawn)]
    if not len(drawn):
        return value, None
    low, high = np.quantile(drawn, (0.025, 0.975))
    return value, (float(low), float(high))


def bootstrap_median(values: ArrayLike, seed: int = 0) -> tuple[float, tuple[float, float]]:
    """Compute the median and its 95% percentile bootstrap interval.

    Args:
        values: (n,) numbers.
        seed: random seed of the bootstrap.

    Returns:
        the median and the interval, in the unit of the values.
    """
    x = np.asarray(values, float)
    index = np.random.default_rng(seed).integers(0, len(x), (DRAWS, len(x)))
    low, high = np.quantile(np.median(x[index], axis=1), (0.025, 0.975), method="nearest")
    return float(np.median(x)), (float(low), float(high))


def _correlation(x: NDArray[np.float64], y: NDArray[np.float64]) -> NDArray[np.float64]:
    x, y = x - x.mean(1, keepdims=True), y - y.mean(1, keepdims=True)
    return np.asarray((x * y).sum(1) / np.sqrt((x**2).sum(1) * (y**2).sum(1)))
