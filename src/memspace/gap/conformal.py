"""Intervals for a network of a group that was never seen, by leaving groups out (Barber et al. 2021; Lee et al. 2023).

Groups of networks, not networks, are exchangeable. Each of G groups has the mass 1/(G + 1), spread evenly over its
networks, and the group to come has the rest at infinity. So an interval of level 1 − α is finite only where
α(G + 1) ≥ 1: 90% need nine groups. Where groups hardly differ, the intervals hold up to 1/(G + 1) more than the level.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

__all__ = ["fewest_groups", "interval_of", "upper_quantile"]

Floats = NDArray[np.float64]


def fewest_groups(level: float) -> int:
    """Count the groups without which an interval has no finite ends.

    Args:
        level: of the interval.

    Returns:
        ⌈1/(1 − level)⌉ − 1.
    """
    return math.ceil(1 / (1 - level) - 1e-9) - 1


def upper_quantile(scores: Sequence[Floats], level: float) -> float:
    """Find the score below which a network of a new group lies with a stated chance.

    Args:
        scores: of the networks, a group each.
        level: the chance.

    Returns:
        The least score whose mass reaches the level; +∞ where the groups are too few.
    """
    values = np.concatenate(list(scores))
    mass = np.concatenate([np.full(len(s), 1 / (len(s) * (len(scores) + 1))) for s in scores])
    order = np.argsort(values, kind="stable")
    total = np.cumsum(mass[order])
    place = int(np.searchsorted(total, level - 1e-9))
    return float(values[order][place]) if place < len(values) else math.inf


def interval_of(
    predicted: Sequence[float], spread: Sequence[float], scores: Sequence[Floats], level: float
) -> tuple[float, float]:
    """Compute the interval of one new network.

    Args:
        predicted: by the line without each group.
        spread: by which that line's scores are multiplied here.
        scores: |error| over spread of each group's networks, by the line without the group.
        level: 1 − α.

    Returns:
        The ends; infinite where the groups are too few. A new group's networks are inside with a chance of at least
        1 − 2α whatever the distribution, and of about 1 − α where the lines hardly depend on one group.
    """
    reach = [s * np.asarray(r) for s, r in zip(spread, scores, strict=True)]
    above = upper_quantile([p + r for p, r in zip(predicted, reach, strict=True)], level)
    below = upper_quantile([r - p for p, r in zip(predicted, reach, strict=True)], level)
    return -below, above
