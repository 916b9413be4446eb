"""Measures of real targets: the share of the targets' variance explained, and the noise of the residuals.

Neither depends on the law's σ; the share does not depend on the unit of the targets either.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from memspace.measures.damping import DampingChoice
from memspace.measures.declaration import measure, provides
from memspace.measures.values import Curvature, LeaveOneOutOutputs, TestOutputs, TrainingOutputs
from memspace.measures.workspace import Measured
from memspace.task.task import Task
from memspace.value import Absent, Value

__all__ = ["TargetSpread", "loo_gap", "r2_loo", "r2_test", "r2_train", "sigma"]

NAMED = 8  # outputs with a measurement each


@dataclass(frozen=True)
class TargetSpread:
    """Spread of each output's training targets.

    Args:
        centre: (C,) means.
        scale: (C,) standard deviations; 1 where all targets are equal.
    """

    centre: Tensor
    scale: Tensor

    @staticmethod
    def of(y: Tensor) -> TargetSpread:
        """Return mean and standard deviation of targets.

        Args:
            y: (n, ..., C) targets.

        Returns:
            by output.
        """
        flat = y.double().reshape(-1, y.shape[-1])
        spread = flat.std(0, correction=0)
        return TargetSpread(flat.mean(0), torch.where(spread > 0, spread, torch.ones_like(spread)))

    def errors(self, f: Tensor, y: Tensor) -> Tensor:
        """Return squared errors in the targets' own spread.

        Args:
            f: (n, ..., C) predictions.
            y: (n, ..., C) targets.

        Returns:
            (n,) summed over outputs.
        """
        return ((y.double() - f.double()) / self.scale).square().flatten(1).sum(1)

    def explained(self, f: Tensor, y: Tensor, how: str = "") -> Value:
        """Return R² = 1 − Σ(y − f)²/Σ(y − ȳ)², ȳ the mean training target.

        Args:
            f: (n, ..., C) predictions.
            y: (n, ..., C) targets.
            how: particulars of the predictions, for people.

        Returns:
            a share of the variance; NaN where the targets do not vary.
        """
        ratio = Value.ratio(self.errors(f, y), self.errors(self.centre.expand(y.shape), y), how=how)
        ends = None if ratio.interval is None else (1 - ratio.interval[1], 1 - ratio.interval[0])
        return replace(ratio, value=1 - ratio.value, interval=ends)


@provides()
def spread_of_targets(task: Task, outputs: TrainingOutputs) -> TargetSpread | Absent:
    """Read the spread of numbers that are targets."""
    real = task.likelihood.continuous and outputs.f.shape == outputs.y.shape
    return TargetSpread.of(outputs.y) if real else Absent()


@measure(
    "regression.r2_train",
    chapter="generalisation",
    unit="1",
    estimator="share of the variance explained, training",
    source="wright1921",
    better="larger",
    shown="share",
)
def r2_train(task: Task, spread: TargetSpread, outputs: TrainingOutputs) -> Value:
    """Share of the variance of the training targets that is explained."""
    return spread.explained(task.likelihood.mean(outputs.f), outputs.y)


@measure(
    "regression.r2_loo",
    chapter="generalisation",
    unit="1",
    estimator="share of the variance explained without the example itself",
    source="wright1921",
    better="larger",
    shown="share",
)
def r2_loo(
    task: Task,
    spread: TargetSpread,
    outputs: TrainingOutputs,
    curvature: Curvature,
    damping: DampingChoice,
    loo: LeaveOneOutOutputs | None,
) -> Value | None:
    """Share of the variance explained of a target that was not trained on."""
    if loo is None:
        return None
    share = spread.explained(task.likelihood.mean(loo.f), outputs.y, curvature.estimator)
    return replace(share, reliable=share.reliable and damping.reliable, note=share.note or damping.statement)


@measure(
    "regression.sigma",
    chapter="generalisation",
    unit="target units",
    estimator="root mean square of leave-one-out residuals",
    better="smaller",
)
def sigma(
    task: Task,
    spread: TargetSpread,
    outputs: TrainingOutputs,
    curvature: Curvature,
    damping: DampingChoice,
    loo: LeaveOneOutOutputs | None,
) -> dict[str, Value]:
    """Standard deviation of the error on an example not seen, by output."""
    if loo is None:
        return {}
    squares = (outputs.y.double() - task.likelihood.mean(loo.f.double())).square()
    count = squares.shape[-1]
    values = {}
    for c in range(min(count, NAMED)):
        mean = Value.mean(squares[..., c].tolist(), lower=0.0)
        ends = None if mean.interval is None else (math.sqrt(max(mean.interval[0], 0.0)), math.sqrt(mean.interval[1]))
        values["" if count == 1 else str(c)] = Value(
            math.sqrt(mean.value),
            mean.n,
            ends,
            curvature.estimator,
            mean.reliable and damping.reliable,
            damping.statement,
        )
    return values


@measure(
    "regression.r2_test",
    chapter="generalisation",
    unit="1",
    estimator="share explained, test examples",
    source="wright1921",
    better="larger",
    shown="share",
)
def r2_test(task: Task, spread: TargetSpread, test: TestOutputs | None) -> Value | None:
    """Share of the variance of the test targets that is explained."""
    return None if test is None else spread.explained(task.likelihood.mean(test.f), test.y)


@measure(
    "regression.loo_gap",
    chapter="generalisation",
    unit="1",
    estimator="squared error without the example itself less that on test examples, in the targets' variance",
)
def loo_gap(
    task: Task,
    spread: TargetSpread,
    outputs: TrainingOutputs,
    measured: Measured,
    loo: LeaveOneOutOutputs | None,
    test: TestOutputs | None,
) -> Value | None:
    """Difference between the leave-one-out estimate and the measured test error."""
    if loo is None or test is None:
        return None
    mean = task.likelihood.mean
    inside, outside = spread.errors(mean(loo.f), outputs.y), spread.errors(mean(test.f), test.y)
    estimate = measured.get("regression.r2_loo")
    return Value.with_error(
        float(inside.mean() - outside.mean()),
        math.hypot(_standard_error(inside), _standard_error(outside)),
        len(outside),
        df=max(min(len(inside), len(outside)) - 1, 0),
        reliable=estimate is not None and estimate.reliable,
    )


def _standard_error(samples: Tensor) -> float:
    """Standard error of the mean; infinite of a single sample."""
    return float(samples.std()) / math.sqrt(len(samples)) if len(samples) > 1 else math.inf
