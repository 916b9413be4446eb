"""Probabilities corrected for the number of measures that were tried (Holm 1979; Benjamini & Hochberg 1995)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from scipy.stats import false_discovery_control

from memspace.errors import DataError

__all__ = ["Adjusted", "adjusted"]


@dataclass(frozen=True)
class Adjusted:
    """A probability of chance among many.

    Args:
        p: as it was.
        q: smallest false discovery rate at which it is a discovery (Benjamini & Hochberg).
        holm: smallest chance of any false discovery at which it is one (Holm).
    """

    p: float
    q: float
    holm: float


def adjusted(chances: Mapping[str, float]) -> dict[str, Adjusted]:
    """Compute the probabilities of several measures corrected for their number.

    Args:
        chances: p by name; NaN, where it is not known, is no test and is not counted.

    Returns:
        Corrected by name, in the order given; NaN where p is.

    Raises:
        DataError: a probability lies outside [0, 1].
    """
    p = np.array(list(chances.values()), float)
    known = ~np.isnan(p)
    if ((p[known] < 0) | (p[known] > 1)).any():
        raise DataError("a probability lies outside [0, 1]", where="memspace.judging", remedy="give p-values")
    q, holm = p.copy(), p.copy()
    if known.any():
        q[known] = false_discovery_control(p[known])
        order = np.argsort(p[known], kind="stable")
        steps = np.maximum.accumulate(p[known][order] * np.arange(len(order), 0, -1))
        placed = np.empty(len(order))
        placed[order] = np.minimum(steps, 1.0)
        holm[known] = placed
    return {name: Adjusted(float(a), float(b), float(c)) for name, a, b, c in zip(chances, p, q, holm, strict=True)}
