"""Where a growing function of a positive number reaches a value, in few evaluations."""

from __future__ import annotations

import math
from collections.abc import Callable

from scipy.optimize import brentq

__all__ = ["crossing"]

FLOOR = 1e-2  # of the target: rises below it are taken as this much, so that their logarithm is finite
STRIDE = math.log(8)  # the longest step in log x
FAR = math.log(1e8)  # as far from the start as is looked
NEAR = 0.02  # log(rise/target) that counts as none


def crossing(rise: Callable[[float], float], target: float, start: float, *, slope: float = 2.0) -> float | None:
    """Find x with rise(x) = target, where log rise is about ``slope`` · log x + constant.

    Newton's steps in logarithms until the target lies between two of them, then Brent's method.

    Args:
        rise: a function of x > 0 that grows, apart from noise.
        target: its value, positive.
        start: where to begin, positive.
        slope: of log rise against log x, nearly: 2 for a rise of second order.

    Returns:
        x where the rise is within 2% of the target, or to 2% where it jumps; None where the target is not reached, or
        always exceeded.
    """

    def distance(log_x: float) -> float:
        value = rise(math.exp(log_x))
        if math.isnan(value):  # outputs that overflowed: beyond any target
            return -math.log(FLOOR)
        gap = math.log(min(max(value / target, FLOOR), 1 / FLOOR))
        return 0.0 if abs(gap) < NEAR else gap

    x = math.log(start)
    low = high = None
    for _ in range(40):
        gap = distance(x)
        if gap == 0:
            return math.exp(x)
        if gap < 0:
            low = x
        else:
            high = x
        if low is not None and high is not None:
            return math.exp(brentq(distance, low, high, xtol=0.02))
        x -= max(-STRIDE, min(STRIDE, 1.1 * gap / slope))
        if abs(x - math.log(start)) > FAR:
            return None
    return None
