"""How sure the network is on its training data, and the gain at which it would be as sure as it is right."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch
from scipy.optimize import minimize_scalar
from torch import Tensor

from memspace.measures.calibration import calibration_error
from memspace.measures.declaration import measure, provides
from memspace.measures.predictors.margins import logit_gain
from memspace.measures.predictors.values import Margins, Predictions, predictions_of
from memspace.measures.values import TrainingOutputs
from memspace.task.task import Task
from memspace.value import Absent, Value

__all__ = ["Probabilities", "best_temperature"]

WIDEST = 12.0  # |ln T| that is searched
FEWEST = 2  # examples of a class whose mean loss counts


@dataclass(frozen=True)
class Probabilities:
    """Log-probabilities of the classes on the training data, for each prediction that counts.

    Args:
        log_p: (m, K), nats.
        y: (m,) classes.
        example: (m,) the example of each, where an example holds several positions; else None.
    """

    log_p: Tensor
    y: Tensor
    example: Tensor | None


@provides()
def probabilities(task: Task, outputs: TrainingOutputs) -> Probabilities | Absent:
    """Read the classes' probabilities."""
    read = predictions_of(outputs.f, outputs.y, outputs.weight)
    log_p = task.likelihood.log_probabilities(read.f)
    if log_p is None or read.y.dim() != 1 or read.y.is_floating_point():
        return Absent("labels are not one class for each prediction", "read a classifier")
    return Probabilities(log_p.cpu(), read.y.cpu(), read.example)


@measure(
    "confidence.mean",
    chapter="predictors",
    unit="1",
    estimator="mean probability of the likeliest class",
    source="jiang2020",
    better="smaller",
)
def confidence(p: Probabilities) -> Value:
    """How sure the network is of its predictions on the training data."""
    return Value.mean(p.log_p.amax(1).exp(), groups=p.example, lower=0.0, upper=1.0)


@measure(
    "confidence.entropy",
    chapter="predictors",
    unit="nats",
    estimator="mean of −Σ p ln p",
    source="jiang2020",
    better="larger",
)
def entropy(p: Probabilities) -> Value:
    """Mean entropy of the predictions on the training data."""
    terms = torch.special.entr(p.log_p.exp()).sum(1)
    return Value.mean(terms, groups=p.example, lower=0.0, upper=math.log(p.log_p.shape[1]))


@measure(
    "confidence.calibration_error",
    chapter="predictors",
    unit="1",
    estimator="root mean square of accuracy − confidence over bins, training labels",
    source="kumar2019",
    better="smaller",
)
def calibration(p: Probabilities) -> Value:
    """Difference between confidence and accuracy on the training data."""
    value = calibration_error(p.log_p, p.y)
    return value if p.example is None else replace(value, interval=None)  # positions are not drawn one by one


@measure(
    "confidence.temperature",
    chapter="predictors",
    unit="1",
    estimator="the T that makes the training loss of the outputs f/T least",
    source="guo2017",
)
def temperature(task: Task, outputs: TrainingOutputs, margins: Margins) -> Value | Absent:
    """By what the outputs would be divided to be as sure as they are right on the training data."""
    if not task.likelihood.gain_free:
        return Absent("a gain on the outputs changes this law's predictions", "read a classifier")
    if bool((margins.values > 0).all()):
        reason = "every training example is right: the loss falls without end as the temperature does"
        return Absent(reason, "read it where some training examples are misclassified")
    value = best_temperature(task, predictions_of(outputs.f, outputs.y, outputs.weight))
    if value is None:
        return Absent("the loss is least at no finite temperature: outputs are worse than none", "train the network")
    return Value(value, len(margins.values))


def best_temperature(task: Task, predictions: Predictions) -> float | None:
    """Find the temperature of least loss; the loss is convex in 1/T.

    Args:
        task: its law's loss is taken.
        predictions: outputs and labels.

    Returns:
        T; None where it is not finite and positive.
    """

    def loss(log_inverse: float) -> float:
        return float(task.likelihood.nll(predictions.f * math.exp(log_inverse), predictions.y).mean())

    least = minimize_scalar(loss, bounds=(-WIDEST, WIDEST), method="bounded", options={"xatol": 1e-9})
    return None if abs(float(least.x)) > WIDEST - 0.01 else math.exp(-float(least.x))


@measure(
    "confidence.logit_gain",
    chapter="predictors",
    unit="1",
    estimator="ln of the root mean square of the outputs, less their mean",
    source="guo2017",
    better="smaller",
)
def gain(task: Task, outputs: TrainingOutputs) -> Value | Absent:
    """Size of the outputs on the training data."""
    size = logit_gain(task, outputs)
    return Value(math.log(size), outputs.n) if size else Absent("all outputs are alike", "train the network")


@measure(
    "confidence.class_spread",
    chapter="predictors",
    unit="nats",
    estimator="standard deviation over classes of the mean training loss of a class",
    better="smaller",
)
def class_spread(p: Probabilities) -> Value | Absent:
    """How unevenly the training loss is spread over the classes."""
    losses = -p.log_p.gather(1, p.y[:, None])[:, 0]
    counts = torch.bincount(p.y, minlength=p.log_p.shape[1])
    sums = torch.zeros(len(counts), dtype=losses.dtype).index_add_(0, p.y, losses)
    means = (sums / counts)[counts >= FEWEST]
    if len(means) < 2:
        return Absent("fewer than two classes have two training examples", "give more data")
    return Value(float(means.std(correction=0)), len(losses))
