"""Ratios of means over examples: 95% intervals by the delta method."""

from __future__ import annotations

from torch import Tensor

from memspace.action.lengths import interval
from memspace.value import Value

__all__ = ["ratio_of"]


def ratio_of(above: Tensor, below: Tensor, how: str = "", note: str = "") -> Value:
    """Compute the mean of one quantity over the mean of another, measured on the same examples.

    Args:
        above: (n,).
        below: (n,), of positive mean.
        how: particulars of this computation.
        note: one sentence of context.

    Returns:
        The ratio, a pure number, with its interval by the delta method.
    """
    under = float(below.mean())
    ratio = float(above.mean()) / under
    effect = (above - ratio * below) / under
    return Value(ratio, len(above), interval(ratio, effect), how=how, note=note)
