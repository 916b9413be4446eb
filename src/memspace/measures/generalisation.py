"""Test loss and calibration estimated from training data alone, next to the measured ones where there are any."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from memspace.intervals import of_independent_ratio
from memspace.measures.calibration import calibration_error
from memspace.measures.correct import by_example, correct, per_prediction
from memspace.measures.damping import DampingChoice
from memspace.measures.declaration import measure, truth
from memspace.measures.expected import LeaveOneOutDoubt, expected_calibration
from memspace.measures.explained import TargetSpread
from memspace.measures.judge import Judged, Unseen
from memspace.measures.test_loss import Expected
from memspace.measures.values import (
    Curvature,
    LeaveOneOutLosses,
    LeaveOneOutOutputs,
    SelfInfluence,
    TestOutputs,
    TrainingOutputs,
)
from memspace.measures.workspace import Measured
from memspace.task.task import Task
from memspace.value import Absent, Value

__all__ = [
    "calibration_to_expect",
    "damping_used",
    "floor_of",
    "loo_estimate",
    "loo_estimate_as_given",
    "loo_relative_error",
    "measured_accuracy",
    "measured_calibration",
    "measured_loss",
    "tic_estimate",
    "tic_gap",
    "train_loss",
    "true_label_estimate",
]

ESTIMATE, MEASURED = "generalisation.loo_estimate", "generalisation.test_loss"


def floor_of(task: Task, outputs: TrainingOutputs) -> float:
    """Return what a mean loss per prediction is never below.

    Args:
        task: whose law it is.
        outputs: of the training data.

    Returns:
        0 nats for discrete labels; −∞ for a density, and for a sequence's linearised mean.
    """
    return -math.inf if outputs.sequence or task.likelihood.continuous else 0.0


@measure(
    "generalisation.train_loss",
    chapter="generalisation",
    unit="nats",
    estimator="mean over training labels as given",
    better="smaller",
)
def train_loss(task: Task, outputs: TrainingOutputs) -> Value:
    """Mean loss of a prediction on the training data."""
    losses = per_prediction(outputs.loss, by_example(outputs.weight))
    return Value.mean(losses.tolist(), lower=floor_of(task, outputs), per=outputs.per)


@measure(
    "generalisation.tic_gap",
    chapter="generalisation",
    unit="nats",
    estimator="tr((F+γI)⁻¹C)/N",
    source="takeuchi1976, thomas2020",
)
def tic_gap(
    outputs: TrainingOutputs,
    influence: SelfInfluence,
    curvature: Curvature,
    damping: DampingChoice,
    doubt: LeaveOneOutDoubt,
) -> Value:
    """Excess of the loss on new data over the training loss, by Takeuchi's criterion."""
    how = f"γ={damping.value:.2g}; {curvature.estimator}"
    reliable = damping.reliable and not doubt.reason
    return Value(_gap(outputs, influence), outputs.n, how=how, reliable=reliable, per=outputs.per)


def _gap(outputs: TrainingOutputs, influence: SelfInfluence) -> float:
    """Mean self-influence of a prediction, nats."""
    return float(influence.total.mean()) / (outputs.count / outputs.n)


@measure(
    "generalisation.tic_estimate",
    chapter="generalisation",
    unit="nats",
    estimator="training loss plus TIC gap, labels as given",
    source="takeuchi1976",
    better="smaller",
)
def tic_estimate(
    outputs: TrainingOutputs, influence: SelfInfluence, damping: DampingChoice, doubt: LeaveOneOutDoubt
) -> Value:
    """Loss on new data by Takeuchi's criterion."""
    value = float(outputs.loss.sum()) / outputs.count + _gap(outputs, influence)
    return Value(value, outputs.n, reliable=damping.reliable and not doubt.reason, per=outputs.per)


@measure(
    ESTIMATE,
    chapter="generalisation",
    unit="nats",
    estimator="loss expected without test data",
    source="rad2020",
    better="smaller",
)
@truth(MEASURED)
def loo_estimate(outputs: TrainingOutputs, curvature: Curvature, expected: Expected) -> Value:
    """Loss to expect on data like the training data."""
    how = f"{expected.how}; {curvature.estimator}"
    return Value(expected.value, outputs.n, expected.interval, how, expected.reliable, expected.note, per=outputs.per)


@measure(
    "generalisation.loo_estimate_as_given",
    chapter="generalisation",
    unit="nats",
    estimator="leave-one-out against the labels as given",
    better="smaller",
)
def loo_estimate_as_given(
    outputs: TrainingOutputs,
    without: LeaveOneOutLosses,
    curvature: Curvature,
    damping: DampingChoice,
    doubt: LeaveOneOutDoubt,
) -> Value:
    """Mean loss of an example left out, whether its label is right or wrong."""
    value, reliable = float(without.loss.sum()) / outputs.count, damping.reliable and not doubt.reason
    return Value(value, outputs.n, None, curvature.estimator, reliable, doubt.reason, per=outputs.per)


@measure("damping", chapter="generalisation", unit="nats", estimator="γ of (F + γI)⁻¹")
def damping_used(outputs: TrainingOutputs, damping: DampingChoice) -> Value:
    """The damping at which influence and leave-one-out are computed."""
    return Value(damping.value, outputs.n, how=damping.rule, reliable=damping.reliable, note=damping.statement)


@measure(
    "generalisation.calibration_estimate",
    chapter="generalisation",
    unit="1",
    estimator="calibration error of outputs that did not see the example",
    source="kumar2019",
    better="smaller",
)
@truth("generalisation.test_calibration")
def calibration_to_expect(
    task: Task,
    outputs: TrainingOutputs,
    curvature: Curvature,
    damping: DampingChoice,
    unseen: Unseen,
    labels: Judged | None,
) -> Value | Absent:
    """Difference between confidence and accuracy on data like the training data."""
    value = None
    if labels is not None:
        value = expected_calibration(task.likelihood, outputs.y, labels, unseen, damping, curvature.estimator)
    if value is not None:
        return value
    reason = "a sequence model, another output law than categorical, or too many outputs"
    return Absent(reason, "audit a classifier with one label per example")


@measure(
    "generalisation.test_calibration",
    chapter="generalisation",
    unit="1",
    estimator="calibration error on the test examples",
    source="kumar2019",
    better="smaller",
)
@truth()
def measured_calibration(
    task: Task, test: TestOutputs | None, labels: Judged | None, loo: LeaveOneOutOutputs | None
) -> Value | None:
    """Difference between confidence and accuracy on the test data, where it can be estimated without them."""
    if test is None or labels is None or loo is None:
        return None
    log_p = task.likelihood.log_probabilities(test.f.double())
    return None if log_p is None else calibration_error(log_p, test.y)


@measure(
    MEASURED,
    chapter="generalisation",
    unit="nats",
    estimator="mean over test examples",
    better="smaller",
)
@truth()
def measured_loss(task: Task, test: TestOutputs, outputs: TrainingOutputs) -> Value:
    """Mean loss of a prediction on the test data."""
    law = task.likelihood
    losses, count = law.nll(test.f.double(), test.y), law.weight(test.f, test.y)
    means = per_prediction(by_example(losses), by_example(count))
    return Value.mean(means, lower=floor_of(task, outputs), per=outputs.per)


@measure(
    "generalisation.test_accuracy",
    chapter="generalisation",
    unit="1",
    estimator="share right, test examples",
    better="larger",
    shown="share",
)
@truth()
def measured_accuracy(task: Task, test: TestOutputs | None) -> Value | None:
    """Share of the test data that it gets right."""
    law = task.likelihood
    if test is None or not law.classifies:
        return None
    right, counted = correct(law, test.f, test.y), law.weight(test.f, test.y) > 0
    groups = _sequence_of(right)[counted].cpu().numpy() if right.dim() > 1 else None  # its positions are one draw
    return Value.share(right[counted].cpu(), groups=groups)


def _sequence_of(positions: Tensor) -> Tensor:
    """The number of the example that each position belongs to."""
    numbers = torch.arange(len(positions), device=positions.device)
    return numbers.reshape(-1, *[1] * (positions.dim() - 1)).expand_as(positions)


@measure(
    "generalisation.loo_relative_error",
    chapter="generalisation",
    unit="1",
    estimator="loss expected without test data over measured test loss, less one",
    source="zou2008",
)
def loo_relative_error(measured: Measured, spread: TargetSpread | None) -> Value | None:
    """Relative error of the leave-one-out estimate against the test loss; the interval joins both, in logarithms."""
    estimate, test = measured.get(ESTIMATE), measured.get(MEASURED)
    # A density's nats change with the targets' unit: no ratio of them is a verdict.
    if estimate is None or test is None or spread is not None:
        return None
    ends = of_independent_ratio(estimate.value, estimate.interval, test.value, test.interval)
    ratio = estimate.value / test.value if estimate.value > 0 and test.value > 0 else math.nan
    return Value(
        ratio - 1,
        test.n,
        None if ends is None else (ends[0] - 1, ends[1] - 1),
        reliable=estimate.reliable and test.reliable and ends is not None,
        note=estimate.note if not estimate.reliable else test.note if not test.reliable else "",
    )


@measure(
    "generalisation.true_label_estimate",
    chapter="generalisation",
    unit="nats",
    estimator="part of the loss expected without test data, where labels are judged",
)
def true_label_estimate(
    outputs: TrainingOutputs, labels: Judged | None, loo: LeaveOneOutOutputs | None
) -> Absent | None:
    """Reason why the expected loss refers to the labels as given, where it does."""
    if labels is not None or outputs.sequence:
        return None
    reason = "no model of wrong labels for this output law"
    if loo is None:
        reason = "too many outputs for leave-one-out outputs, by which labels are judged"
    return Absent(reason, "read the estimate against the labels as given")
