"""Margins: how far the outputs, the last representation or the weights are from another decision."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from scipy import stats
from torch import Tensor

from memspace.measures.cost import Facts, Stage
from memspace.measures.declaration import measure, provides
from memspace.measures.predictors.hidden import LastLayer
from memspace.measures.predictors.roots import log_root_of
from memspace.measures.predictors.values import (
    EXAMPLES,
    SEED,
    LowerMargin,
    Margins,
    drawn_examples,
    predictions_of,
)
from memspace.measures.values import Budget, TrainingOutputs
from memspace.passes.cotangent import View
from memspace.passes.engine import PassOptions, run_pass
from memspace.passes.space import ParameterSpace
from memspace.passes.statistics import GradientNorms, TableStatistic
from memspace.task.likelihood import Likelihood
from memspace.task.task import Task
from memspace.value import Absent, Value

__all__ = ["WeightMargins", "boundary_distances"]

QUARTILES = {"lower": 0.25, "median": 0.5, "upper": 0.75}


@dataclass(frozen=True)
class WeightMargins:
    """How far the weights are from a misclassification of each example, to first order.

    Args:
        values: (m,) γ/‖∂γ/∂θ‖, of the prediction of least margin of each example.
    """

    values: Tensor


@measure(
    "margins.inverse",
    chapter="predictors",
    unit="1",
    estimator="ln √(1/(γ²n)), γ the 10th percentile of the margins",
    source="dziugaite2020",
    better="smaller",
)
def inverse(task: Task, margin: LowerMargin) -> Value:
    """Inverse of the margin that nine tenths of the training examples have."""
    return log_root_of(-2 * math.log(margin.value), task)


@measure(
    "margins.lower",
    chapter="predictors",
    unit="1",
    estimator="10th percentile of f_y − max f_k",
    source="jiang2020",
    better="larger",
)
def lower(margins: Margins) -> Value:
    """Margin of the outputs that nine tenths of the training examples have."""
    return _percentile(margins.values, 0.1, margins.example is None)


@measure(
    "margins.mean",
    chapter="predictors",
    unit="1",
    estimator="mean of f_y − max f_k",
    source="jiang2020",
    better="larger",
)
def mean(margins: Margins) -> Value:
    """Mean margin of the outputs."""
    return Value.mean(margins.values, groups=margins.example)


@measure(
    "margins.normalised",
    chapter="predictors",
    unit="1",
    estimator="10th percentile of f_y − max f_k over the root mean square of f − mean f",
    better="larger",
)
def normalised(task: Task, outputs: TrainingOutputs, margins: Margins) -> Value | Absent:
    """Margin that nine tenths of the training examples have, free of a gain on the outputs."""
    gain = logit_gain(task, outputs)
    if not gain:
        return Absent("all outputs are alike", "train the network")
    return Value(margins.lower / gain, len(margins.values))


def logit_gain(task: Task, outputs: TrainingOutputs) -> float:
    """Compute the size of the outputs on the training data.

    Args:
        task: the network and its law: what a law ignores of its outputs is taken off.
        outputs: on the training data.

    Returns:
        the root mean square of the outputs; where a number added to all of them changes nothing, less their mean.
    """
    f = predictions_of(outputs.f, outputs.y, outputs.weight).f
    centred = f - f.mean(1, keepdim=True) if task.likelihood.shift_free else f
    return float(centred.square().mean().sqrt())


@measure(
    "margins.boundary",
    chapter="predictors",
    unit="1",
    estimator="quartiles of min (f_y − f_k)/‖w_y − w_k‖ at the last layer, over the spread √tr Cov(h) of its inputs",
    source="jiang2019",
    better="larger",
)
def boundary(last: LastLayer) -> dict[str, Value | Absent] | Absent:
    """Distance of the last representation from another decision, exact, in units of its spread."""
    f, y = last.predictions.f, last.predictions.y
    if y.dim() != 1 or y.is_floating_point() or f.shape[1] < 2:
        return Absent("labels are not one class for each prediction", "read a classifier")
    spread = float((last.hidden - last.hidden.mean(0)).square().sum(1).mean().sqrt())
    if not spread:
        return Absent("all examples have one representation", "train the network")
    distances = boundary_distances(last) / spread
    single = last.predictions.example is None
    return {name: _percentile(distances, share, single) for name, share in QUARTILES.items()}


def boundary_distances(last: LastLayer) -> Tensor:
    """Compute the distance of h from the nearest h' at which another class has the label's logit.

    Args:
        last: layer, whose outputs are classes.

    Returns:
        (m,) in units of h; negative where the prediction is wrong.
    """
    f, y = last.predictions.f, last.predictions.y[:, None]
    gaps = f.gather(1, y) - f
    lengths = torch.cdist(last.weight, last.weight)[y[:, 0]]
    distances = torch.where(lengths > 0, gaps / lengths, torch.copysign(torch.full_like(gaps, math.inf), gaps))
    return distances.scatter(1, y, math.inf).amin(1)


def _weight_cost(facts: Facts) -> Stage | None:
    if not facts.boundary:
        return None
    examples = min(EXAMPLES, facts.n)
    forwards, backwards = facts.read(1, facts.proofs(examples, 1))
    return Stage("gradients of margins", examples, forwards, backwards, 0, "how far weights are from another decision")


@provides(cost=_weight_cost)
def weight_margins(task: Task, space: ParameterSpace, margins: Margins, budget: Budget) -> WeightMargins:
    """Compute margins over the norms of their gradients in the weights."""
    index = drawn_examples(len(task.train), EXAMPLES, budget.seed + SEED + 4)
    least, norms = _LeastMargins(task.likelihood), GradientNorms(space.blocks, "given")
    run_pass(task, space, [least, norms], PassOptions(index=index, progress=budget.progress, what="margins"))
    gaps, lengths = least.finish()["margin"].double().cpu(), norms.finish()["norms"].sum(1).sqrt().cpu()
    return WeightMargins((gaps / lengths)[(lengths > 0) & torch.isfinite(gaps)])


@measure(
    "margins.weights",
    chapter="predictors",
    unit="1",
    estimator="10th percentile of γ/‖∂γ/∂θ‖: the all-layer margin to first order",
    source="wei2020",
    better="larger",
)
def weights(margins: WeightMargins) -> Value | Absent:
    """How far the weights are from misclassifying a training example, nine tenths of the examples."""
    if not len(margins.values):
        return Absent("no margin depends on the weights", "train the network")
    return _percentile(margins.values, 0.1)


class _LeastMargins(TableStatistic):
    """Gives the view the gradient, in the outputs, of each example's least margin; collects ``margin`` (n,)."""

    def __init__(self, law: Likelihood) -> None:
        super().__init__()
        self._law = law

    def update(self, view: View) -> None:
        """Give one batch's cotangents."""
        f, y = view.f.detach().double(), view.y
        flat = f.flatten(0, -2).requires_grad_()
        labels = y.flatten(0, f.dim() - 2)
        counted = (self._law.weight(f, y) > 0).flatten()
        border = self._law.boundary
        assert border is not None, "margins are absent without a boundary"
        with torch.enable_grad():
            gaps = border.gaps(flat, torch.where(counted, labels, 0) if labels.dim() == 1 else labels).amin(-1)
            (slopes,) = torch.autograd.grad(gaps.sum(), flat)
        by_example = torch.where(counted, gaps.detach(), math.inf).reshape(len(f), -1)
        least = by_example.min(1)
        chosen = torch.nn.functional.one_hot(least.indices, by_example.shape[1]).reshape(*f.shape[:-1], 1)
        view.give((slopes.reshape(f.shape) * chosen).to(view.f.dtype).unsqueeze(0))
        self._append("margin", least.values)


def _percentile(values: Tensor, share: float, single: bool = True) -> Value:
    """A percentile, with the interval of order statistics where values are drawn one by one."""
    numbers = values.numpy()
    value, n = float(np.quantile(numbers, share)), len(numbers)
    if not single:
        return Value(value, n, note="no interval: positions of one example are not drawn one by one")
    ends: Any = stats.quantile_test(numbers, p=share).confidence_interval()
    bottom, top = float(ends.low), float(ends.high)
    if not (math.isfinite(bottom) and math.isfinite(top)):
        return Value(value, n, reliable=False, note=f"{n} examples are too few for an interval")
    return Value(value, n, (min(bottom, value), max(top, value)))
