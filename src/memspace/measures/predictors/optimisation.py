"""How fast the network was trained."""

from __future__ import annotations

import math

import numpy as np
from scipy.integrate import trapezoid

from memspace.measures.declaration import measure
from memspace.measures.predictors.values import TrainingCurve
from memspace.value import Absent, Value

__all__: list[str] = []

LAST = 0.25  # share of the evaluations over which the final slope is taken
SHORT = Absent("the training loss was evaluated less than twice", "evaluate it more often")
MISSED = Absent("the training did not reach its target", "train it longer")


@measure(
    "optimisation.steps",
    chapter="predictors",
    unit="1",
    estimator="ln of the optimiser steps to the target",
    source="hardt2016, jiang2020",
    better="smaller",
)
def steps(curve: TrainingCurve) -> Value | Absent:
    """How many steps the training took to its target."""
    return MISSED if not curve.reached else Value(math.log(curve.reached), 1)


@measure(
    "optimisation.epochs",
    chapter="predictors",
    unit="1",
    estimator="ln of the passes over the data to the target",
    source="hardt2016",
    better="smaller",
)
def epochs(curve: TrainingCurve) -> Value | Absent:
    """How often the training saw each example before it reached its target."""
    if not curve.reached or not curve.epochs > 0:
        return MISSED
    return Value(math.log(curve.epochs * curve.reached / curve.step[-1]), 1)


@measure(
    "optimisation.loss_sum",
    chapter="predictors",
    unit="nats",
    estimator="∫ mean training loss d(epoch), trapezoids",
    source="ru2021",
    better="smaller",
)
def loss_sum(curve: TrainingCurve) -> Value | Absent:
    """Training losses summed over the epochs of the training."""
    if len(curve.step) < 2:
        return SHORT
    return Value(float(trapezoid(curve.loss, _epochs(curve))), len(curve.step))


@measure(
    "optimisation.slope",
    chapter="predictors",
    unit="nats",
    estimator="least-squares slope of the mean training loss per epoch, last quarter of the evaluations",
)
def slope(curve: TrainingCurve) -> Value | Absent:
    """How fast the training loss still changes at the end."""
    count = max(2, math.ceil(LAST * len(curve.step)))
    if len(curve.step) < 2:
        return SHORT
    at, loss = _epochs(curve)[-count:], np.asarray(curve.loss)[-count:]
    at = at - at.mean()
    return Value(float(at @ loss / (at @ at)), count)


def _epochs(curve: TrainingCurve) -> np.ndarray:
    return np.asarray(curve.step, dtype=float) * (curve.epochs / curve.step[-1])
