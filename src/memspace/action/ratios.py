"""Ratios of means over examples as measurements: 95% intervals by the delta method."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from memspace.action.lengths import interval
from memspace.measurement import Measurement

__all__ = ["ratio_of"]


def ratio_of(name: str, above: Tensor, below: Tensor, estimator: str, source: str = "", **more: Any) -> Measurement:
    """Mean of ``above`` over mean of ``below``, both (n,) of the same examples; the latter's mean is positive."""
    under = float(below.mean())
    value = float(above.mean()) / under
    effect = (above - value * below) / under
    return Measurement(name, value, "1", estimator, len(above), interval(value, effect), source, **more)
