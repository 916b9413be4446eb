"""Ratios of means over examples as measurements: 95% intervals by the delta method."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from memspace.action.lengths import interval
from memspace.measurement import Measurement

__all__ = ["ratio_of"]


def ratio_of(name: str, above: Tensor, below: Tensor, estimator: str, source: str = "", **more: Any) -> Measurement:
    """State the mean of one quantity over the mean of another, measured on the same examples.

    Args:
        name: of the measurement.
        above: (n,).
        below: (n,), of positive mean.
        estimator: how they were computed.
        source: keys of the definition's works.
        **more: further fields of the measurement.

    Returns:
        The ratio, with its interval by the delta method.
    """
    under = float(below.mean())
    value = float(above.mean()) / under
    effect = (above - value * below) / under
    return Measurement(name, value, "1", estimator, len(above), interval(value, effect), source, **more)
