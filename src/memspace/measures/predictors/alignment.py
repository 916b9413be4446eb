"""How gradients of single examples agree with the weights and with one another."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from memspace.measures.cost import Facts, Stage
from memspace.measures.declaration import measure, provides
from memspace.measures.objective import Objective
from memspace.measures.predictors.hidden import LastLayer
from memspace.measures.predictors.values import GradientSample
from memspace.measures.values import TrainingOutputs
from memspace.passes.space import ParameterSpace
from memspace.task.task import Task
from memspace.value import Absent, Value

__all__ = ["Alignment", "MeanGradient", "kurtosis_corrected"]

UNIFORM = 1.2  # minus the excess kurtosis of a uniform distribution
FLAT = 0.2  # a kurtosis so near that of a uniform distribution that the correction is mostly noise
FEW = Absent("the gradients of all examples but one are zero", "read the network before it fits every example exactly")


@dataclass(frozen=True)
class Alignment:
    """Cosines of minus the gradient of each prediction's loss with the weights, at the last layer.

    Args:
        cosine: (m,) cos(−∂ℓ/∂W, W); predictions without a gradient are left out.
        example: (m,) the example of each, where an example holds several positions; else None.
    """

    cosine: Tensor
    example: Tensor | None


@dataclass(frozen=True)
class MeanGradient:
    """The gradient of the mean training loss.

    Args:
        squared: its squared norm over all parameters.
        n: training examples.
    """

    squared: float
    n: int


@provides()
def alignment(task: Task, last: LastLayer) -> Alignment | Absent:
    """Compute cos(−r hᵀ, W) of every prediction; r is the gradient of its loss in the outputs."""
    r = task.likelihood.residual(last.predictions.f, last.predictions.y).double().cpu()
    lengths = r.norm(dim=1) * last.hidden.norm(dim=1) * last.weight.norm()
    products = -((r @ last.weight) * last.hidden).sum(1)
    some = lengths > 0
    if int(some.sum()) < 2:
        return FEW
    example = last.predictions.example
    return Alignment(products[some] / lengths[some], None if example is None else example[some])


@measure(
    "alignment.gradient_weights",
    chapter="predictors",
    unit="1",
    estimator="mean of cos(−g, W) over its excess kurtosis + 1.2; g, W at the last layer",
    source="hoelzl2025",
    better="larger",
)
def gradient_weights(aligned: Alignment) -> Value | Absent:
    """Gradient–weight alignment: whether examples pull the last layer's weights outwards, alike for all."""
    x = aligned.cosine
    numbers = torch.arange(len(x)) if aligned.example is None else torch.unique(aligned.example, return_inverse=True)[1]
    shift = x.mean()
    powers = torch.stack([(x - shift) ** k for k in range(5)])
    by_group = torch.zeros(5, int(numbers.max()) + 1, dtype=x.dtype).index_add_(1, numbers, powers)
    total = by_group.sum(1)
    value = _from_powers(total, shift)
    without = _from_powers(total[:, None] - by_group, shift)
    divisor = float(shift / value)
    if not divisor > 0:
        reason = "the cosines are spread more evenly than uniformly, where the correction for kurtosis has no meaning"
        return Absent(reason, "read alignment.mean")
    doubt = divisor < FLAT
    note = "the cosines are spread nearly uniformly, where the correction diverges" if doubt else ""
    error = _jackknife_error(without)
    return Value.with_error(float(value), error, len(x), df=by_group.shape[1] - 1, reliable=not doubt, note=note)


def kurtosis_corrected(cosines: Tensor) -> float:
    """Compute the mean over the excess kurtosis + 1.2, as Hölzl et al. 2025 correct it.

    Args:
        cosines: (m,), not all equal.

    Returns:
        a pure number; negative or infinite where the sample is flatter than a uniform distribution.
    """
    shift = cosines.mean()
    return float(_from_powers(torch.stack([((cosines - shift) ** k).sum() for k in range(5)]), shift))


def _from_powers(sums: Tensor, shift: Tensor) -> Tensor:
    """The corrected mean from Σ (x − shift)^k, k = 0…4 (5, ...)."""
    a, b, c, d = sums[1:] / sums[0]
    variance = b - a**2
    fourth = d - 4 * a * c + 6 * a**2 * b - 3 * a**4
    corrected: Tensor = (shift + a) / (fourth / variance**2 - 3 + UNIFORM)
    return corrected


@measure(
    "alignment.mean",
    chapter="predictors",
    unit="1",
    estimator="mean of cos(−g, W), g and W at the last layer",
    source="hoelzl2025",
    better="larger",
)
def mean_alignment(aligned: Alignment) -> Value:
    """Mean cosine of an example's step with the last layer's weights."""
    return Value.mean(aligned.cosine, groups=aligned.example, lower=-1.0, upper=1.0)


@measure(
    "alignment.whole",
    chapter="predictors",
    unit="1",
    estimator="mean of cos(−g, θ) over examples, all parameters",
    source="hoelzl2025 [eq. 1]",
    better="larger",
)
def whole_alignment(sample: GradientSample) -> Value | Absent:
    """Mean cosine of an example's step with all weights."""
    lengths = (sample.gram.sum(0).diagonal() * sample.norms.sum()).sqrt()
    some = lengths > 0
    if int(some.sum()) < 2:
        return FEW
    cosines = -sample.weights.sum(0)[some] / lengths[some]
    return Value.mean(cosines, lower=-1.0, upper=1.0)


@measure(
    "gradients.coherence",
    chapter="predictors",
    unit="1",
    estimator="mean cosine of the gradients of two examples",
    source="fort2019",
    better="larger",
)
def coherence(sample: GradientSample) -> Value | Absent:
    """How much the steps of different examples point the same way."""
    cosines = _cosines(sample)
    return cosines if isinstance(cosines, Absent) else _over_pairs(cosines, lambda _, off: off, lower=-1.0, upper=1.0)


@measure(
    "gradients.confusion",
    chapter="predictors",
    unit="1",
    estimator="minus the smallest cosine of the gradients of two examples",
    source="sankararaman2020",
    better="smaller",
)
def confusion(sample: GradientSample) -> Value | Absent:
    """How much the steps of the two examples in most conflict point apart."""
    cosines = _cosines(sample)
    return cosines if isinstance(cosines, Absent) else Value(-float(cosines.min()), len(cosines))


@measure(
    "gradients.signal",
    chapter="predictors",
    unit="1",
    estimator="‖E g‖²/E‖g‖², without bias in the numerator",
    source="chatterjee2020",
    better="larger",
)
def signal(sample: GradientSample) -> Value | Absent:
    """Share of an example's squared gradient that all examples have in common."""
    gram = sample.gram.sum(0)
    if int((gram.diagonal() > 0).sum()) < 2:
        return FEW
    return _over_pairs(gram, lambda own, off: off / own, upper=1.0)


@measure(
    "gradients.noise",
    chapter="predictors",
    unit="1",
    estimator="ln tr C, C the covariance of the examples' gradients in nats² per unit of weight²",
    source="jiang2020",
    better="smaller",
)
def noise(sample: GradientSample) -> Value | Absent:
    """How much the gradients of single examples differ."""
    gram = sample.gram.sum(0)
    if not float(gram.diagonal().mean() - gram.mean()) > 0:
        return Absent("the gradients of all examples are alike", "nothing: they have no noise")
    return _over_pairs(gram, lambda own, off: (own - off).log())


def _mean_cost(facts: Facts) -> Stage:
    return Stage("mean gradient", facts.n, 1, 1, 0, "the gradient of the training loss")


@provides(cost=_mean_cost)
def mean_gradient(task: Task, space: ParameterSpace, outputs: TrainingOutputs) -> MeanGradient:
    """Differentiate the mean training loss, without the decay that was added to it."""
    objective, theta = Objective(task, space, "loss"), space.flat(task.model)
    gradient = objective.gradient(theta) - objective.curvature * theta.double()
    return MeanGradient(float((gradient * (outputs.n / outputs.count)).square().sum()), outputs.n)


@measure(
    "gradients.norm",
    chapter="predictors",
    unit="1",
    estimator="ln ‖∇L‖, L the mean training loss in nats",
    source="jiang2020",
    better="smaller",
)
def norm(gradient: MeanGradient) -> Value | Absent:
    """How far the training loss is from stationary."""
    return Value(math.log(gradient.squared) / 2, gradient.n) if gradient.squared > 0 else FEW


def _cosines(sample: GradientSample) -> Tensor | Absent:
    """Cosines of the gradients of two examples (m, m), of those that have one."""
    gram = sample.gram.sum(0)
    some = gram.diagonal() > 0
    if int(some.sum()) < 2:
        return FEW
    gram = gram[some][:, some]
    lengths = gram.diagonal().sqrt()
    return gram / lengths[:, None] / lengths


def _over_pairs(gram: Tensor, statistic: Callable[[Tensor, Tensor], Tensor], **bounds: Any) -> Value:
    """A statistic of the means on and off the diagonal, with the error of leaving out one example at a time."""
    m, squares, total = len(gram), gram.diagonal(), gram.sum()
    value = float(statistic(squares.mean(), (total - squares.sum()) / (m * (m - 1))))
    if m < 3:
        return Value(value, m, reliable=False, note=f"{m} examples are too few for an interval")
    rest = total - 2 * gram.sum(1) + squares  # of the matrix without row and column i
    diagonal = squares.sum() - squares
    without = statistic(diagonal / (m - 1), (rest - diagonal) / ((m - 1) * (m - 2)))
    return Value.with_error(value, _jackknife_error(without), m, df=m - 1, **bounds)


def _jackknife_error(without: Tensor) -> float:
    """The standard error of a statistic from its values (m,) without one independent part at a time."""
    m = len(without)
    return math.sqrt((m - 1) / m * float((without - without.mean()).square().sum()))
