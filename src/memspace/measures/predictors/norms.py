"""Norms of the weights, alone and for each unit of margin, in the form of Dziugaite et al. 2020: ln √(μ/n).

Products and sums run over all weight matrices (see ``values.WeightMatrices``): embeddings too, no biases or scales.
Scales of normalising layers are not multiplied into their neighbours. A product Π_{l=1}^d is one over layers; the mean
of a product is its geometric mean, times d.
"""

from __future__ import annotations

import math

import torch

from memspace.measures.declaration import measure
from memspace.measures.predictors.roots import log_root, log_root_of
from memspace.measures.predictors.values import (
    LowerMargin,
    OtherParameters,
    WeightChanges,
    WeightMatrices,
)
from memspace.passes.space import ParameterSpace
from memspace.task.task import Task
from memspace.value import Absent, Value

__all__ = ["log_complexity"]

GONE = Absent("a weight matrix is zero", "nothing: its norm has no logarithm")


@measure(
    "norms.parameters",
    chapter="predictors",
    unit="1",
    estimator="ln √(P/n)",
    source="jiang2020",
    better="smaller",
)
def parameters(task: Task, space: ParameterSpace) -> Value | Absent:
    """How many parameters there are for each example."""
    return log_root(float(space.size), task)


@measure(
    "norms.squared",
    chapter="predictors",
    unit="1",
    estimator="ln √(‖θ‖²/n), all parameters",
    source="dziugaite2020",
    better="smaller",
)
def squared(task: Task, weights: WeightMatrices, others: OtherParameters) -> Value | Absent:
    """Length of the vector of all parameters."""
    tensors = [*(m.now for m in weights.matrices), *(v.now for v in others.vectors)]
    return log_root(float(sum(t.square().sum() for t in tensors)), task)


@measure(
    "norms.distance",
    chapter="predictors",
    unit="1",
    estimator="ln √(‖θ − θ₀‖²/n), all parameters",
    source="nagarajan2019, dziugaite2020",
    better="smaller",
)
def distance(task: Task, changes: WeightChanges) -> Value | Absent:
    """How far the training moved the parameters."""
    return log_root(changes.squared, task)


@measure(
    "norms.frobenius",
    chapter="predictors",
    unit="1",
    estimator="ln √(Σ‖W‖_F²/n)",
    source="dziugaite2020",
    better="smaller",
)
def frobenius(task: Task, weights: WeightMatrices) -> Value | Absent:
    """Length of the vector of all weights, without biases and scales."""
    return log_root(sum(m.frobenius**2 for m in weights.matrices), task)


@measure(
    "norms.frobenius_distance",
    chapter="predictors",
    unit="1",
    estimator="ln √(Σ‖W − W₀‖_F²/n)",
    source="dziugaite2020",
    better="smaller",
)
def frobenius_distance(task: Task, changes: WeightChanges) -> Value | Absent:
    """How far the training moved the weights, without biases and scales."""
    return log_root(sum(m.frobenius**2 for m in changes.matrices), task)


@measure(
    "norms.spectral_distance",
    chapter="predictors",
    unit="1",
    estimator="ln √(Σ‖W − W₀‖₂²/n)",
    source="dziugaite2020",
    better="smaller",
)
def spectral_distance(task: Task, changes: WeightChanges) -> Value | Absent:
    """How far the training moved the weights in the direction it moved them most."""
    return log_root(sum(m.spectral**2 for m in changes.matrices), task)


@measure(
    "norms.frobenius_product",
    chapter="predictors",
    unit="1",
    estimator="ln √(Π‖W‖_F²/n)",
    source="jiang2020, dziugaite2020",
    better="smaller",
)
def frobenius_product(task: Task, weights: WeightMatrices) -> Value | Absent:
    """Product of the layers' Frobenius norms."""
    return _scaled(_frobenius(weights), task)


@measure(
    "norms.frobenius_product_over_margin",
    chapter="predictors",
    unit="1",
    estimator="ln √(Π‖W‖_F²/(γ²n)), γ the 10th percentile of the margins",
    source="jiang2020, dziugaite2020",
    better="smaller",
)
def frobenius_product_over_margin(task: Task, weights: WeightMatrices, margin: LowerMargin) -> Value | Absent:
    """Product of the layers' Frobenius norms for each unit of margin."""
    return _scaled(_frobenius(weights), task, margin)


@measure(
    "norms.frobenius_mean",
    chapter="predictors",
    unit="1",
    estimator="ln √(d (Π‖W‖_F²)^(1/d)/n), d layers",
    source="jiang2020, dziugaite2020",
    better="smaller",
)
def frobenius_mean(task: Task, weights: WeightMatrices) -> Value | Absent:
    """Sum of the layers' Frobenius norms once they are balanced."""
    return _balanced(_frobenius(weights), task)


@measure(
    "norms.frobenius_mean_over_margin",
    chapter="predictors",
    unit="1",
    estimator="ln √(d (Π‖W‖_F²/γ²)^(1/d)/n), d layers, γ the 10th percentile of the margins",
    source="jiang2020, dziugaite2020",
    better="smaller",
)
def frobenius_mean_over_margin(task: Task, weights: WeightMatrices, margin: LowerMargin) -> Value | Absent:
    """Sum of the layers' Frobenius norms once they are balanced, for each unit of margin."""
    return _balanced(_frobenius(weights), task, margin)


@measure(
    "norms.spectral_product",
    chapter="predictors",
    unit="1",
    estimator="ln √(Π‖W‖₂²/n)",
    source="jiang2020, dziugaite2020",
    better="smaller",
)
def spectral_product(task: Task, weights: WeightMatrices) -> Value | Absent:
    """Product of the layers' spectral norms."""
    return _scaled(_spectral(weights), task)


@measure(
    "norms.spectral_product_over_margin",
    chapter="predictors",
    unit="1",
    estimator="ln √(Π‖W‖₂²/(γ²n)), γ the 10th percentile of the margins",
    source="jiang2020, dziugaite2020",
    better="smaller",
)
def spectral_product_over_margin(task: Task, weights: WeightMatrices, margin: LowerMargin) -> Value | Absent:
    """Product of the layers' spectral norms for each unit of margin."""
    return _scaled(_spectral(weights), task, margin)


@measure(
    "norms.spectral_mean",
    chapter="predictors",
    unit="1",
    estimator="ln √(d (Π‖W‖₂²)^(1/d)/n), d layers",
    source="jiang2020, dziugaite2020",
    better="smaller",
)
def spectral_mean(task: Task, weights: WeightMatrices) -> Value | Absent:
    """Sum of the layers' spectral norms once they are balanced."""
    return _balanced(_spectral(weights), task)


@measure(
    "norms.spectral_mean_over_margin",
    chapter="predictors",
    unit="1",
    estimator="ln √(d (Π‖W‖₂²/γ²)^(1/d)/n), d layers, γ the 10th percentile of the margins",
    source="jiang2020, dziugaite2020",
    better="smaller",
)
def spectral_mean_over_margin(task: Task, weights: WeightMatrices, margin: LowerMargin) -> Value | Absent:
    """Sum of the layers' spectral norms once they are balanced, for each unit of margin."""
    return _balanced(_spectral(weights), task, margin)


@measure(
    "norms.stable_rank",
    chapter="predictors",
    unit="1",
    estimator="ln √(Σ‖W‖_F²/‖W‖₂²/n)",
    source="jiang2020, dziugaite2020",
    better="smaller",
)
def stable_rank(task: Task, weights: WeightMatrices) -> Value | Absent:
    """How many directions the layers' weights use, counted by their size."""
    return GONE if _spectral(weights) is None else log_root(_stable_rank(weights), task)


@measure(
    "norms.spectral_origin_over_margin",
    chapter="predictors",
    unit="1",
    estimator="ln √(Π‖W‖₂² Σ‖W‖_F²/‖W‖₂²/(γ²n)), γ the 10th percentile of the margins",
    source="neyshabur2018, dziugaite2020",
    better="smaller",
)
def spectral_origin_over_margin(task: Task, weights: WeightMatrices, margin: LowerMargin) -> Value | Absent:
    """Bound by spectral norms and sizes of the weights."""
    logs = _spectral(weights)
    return GONE if logs is None else _scaled([*logs, math.log(_stable_rank(weights))], task, margin)


@measure(
    "norms.spectral_start_over_margin",
    chapter="predictors",
    unit="1",
    estimator="ln √(Π‖W‖₂² Σ‖W − W₀‖_F²/‖W‖₂²/(γ²n)), γ the 10th percentile of the margins",
    source="neyshabur2018, dziugaite2020",
    better="smaller",
)
def spectral_start_over_margin(
    task: Task, weights: WeightMatrices, changes: WeightChanges, margin: LowerMargin
) -> Value | Absent:
    """Bound by spectral norms and distances from the start of the training."""
    logs = _spectral(weights)
    if logs is None:
        return GONE
    moved = sum((c.frobenius / m.spectral) ** 2 for m, c in zip(weights.matrices, changes.matrices, strict=True))
    return log_root(moved, task, sum(logs) - 2 * math.log(margin.value))


@measure(
    "norms.spectral_complexity",
    chapter="predictors",
    unit="1",
    estimator="ln (Π‖W‖₂ (Σ (‖(W − W₀)ᵀ‖₂,₁/‖W‖₂)^(2/3))^(3/2)/√n)",
    source="bartlett2017 [eq. 1.2]",
    better="smaller",
)
def spectral_complexity(task: Task, weights: WeightMatrices, changes: WeightChanges) -> Value | Absent:
    """Spectral complexity, with the start of the training as reference."""
    value = log_complexity(weights, changes)
    return value if isinstance(value, Absent) else log_root_of(2 * value, task)


@measure(
    "norms.spectral_complexity_over_margin",
    chapter="predictors",
    unit="1",
    estimator="ln (Π‖W‖₂ (Σ (‖(W − W₀)ᵀ‖₂,₁/‖W‖₂)^(2/3))^(3/2)/(γ√n)), γ the 10th percentile of the margins",
    source="bartlett2017 [theorem 1.1]",
    better="smaller",
)
def spectral_complexity_over_margin(
    task: Task, weights: WeightMatrices, changes: WeightChanges, margin: LowerMargin
) -> Value | Absent:
    """Spectral complexity for each unit of margin, with the start of the training as reference."""
    value = log_complexity(weights, changes)
    return value if isinstance(value, Absent) else log_root_of(2 * value - 2 * math.log(margin.value), task)


def log_complexity(weights: WeightMatrices, changes: WeightChanges) -> float | Absent:
    """Compute ln R of Bartlett et al. 2017; ‖Aᵀ‖₂,₁ sums the lengths of the rows of A, one a unit.

    Args:
        weights: W, with activations whose slope is at most 1.
        changes: W − W₀.

    Returns:
        a pure number; absent where a matrix is zero or none has moved.
    """
    logs = _spectral(weights)
    if logs is None:
        return GONE
    total = 0.0
    for m, c in zip(weights.matrices, changes.matrices, strict=True):
        total += (float(torch.linalg.vector_norm(c.now, dim=1).sum()) / m.spectral) ** (2 / 3)
    if not total:
        return Absent("no weight matrix has moved", "train the network")
    return sum(logs) / 2 + 1.5 * math.log(total)


def _frobenius(weights: WeightMatrices) -> list[float] | None:
    return _logs([m.frobenius for m in weights.matrices])


def _spectral(weights: WeightMatrices) -> list[float] | None:
    return _logs([m.spectral for m in weights.matrices])


def _logs(norms: list[float]) -> list[float] | None:
    """ln of squared norms; None where one is zero."""
    return [2 * math.log(norm) for norm in norms] if min(norms) > 0 else None


def _scaled(logs: list[float] | None, task: Task, margin: LowerMargin | None = None) -> Value | Absent:
    """ln √(product/(γ²n))."""
    if logs is None:
        return GONE
    return log_root_of(sum(logs) - (2 * math.log(margin.value) if margin else 0.0), task)


def _balanced(logs: list[float] | None, task: Task, margin: LowerMargin | None = None) -> Value | Absent:
    """ln √(d (product/γ²)^(1/d)/n)."""
    if logs is None:
        return GONE
    product = sum(logs) - (2 * math.log(margin.value) if margin else 0.0)
    return log_root_of(math.log(len(logs)) + product / len(logs), task)


def _stable_rank(weights: WeightMatrices) -> float:
    return sum((m.frobenius / m.spectral) ** 2 for m in weights.matrices)
