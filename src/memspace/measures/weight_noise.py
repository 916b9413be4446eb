"""The cost of noise on every weight: three numbers of the curve of ``measures.robustness``."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from memspace.measures.cost import Facts, Stage
from memspace.measures.declaration import measure, provides
from memspace.measures.robustness import NoiseCurve, departure, noise_curve, sigma_at_accuracy_loss
from memspace.measures.values import Budget, Curvature, TrainingOutputs
from memspace.passes.space import ParameterSpace
from memspace.task.task import Task
from memspace.value import Absent, Value

__all__ = ["PREDICTED", "SMALL", "moved_examples"]

PREDICTED = (0.001, 0.002, 0.005, 0.01, 0.03, 0.1, 0.3, 1.0)  # nats, at which divergences are measured
SMALL = 2  # the entry of PREDICTED where second order must still be accurate
EXAMPLES = 2000  # training examples whose predictions are compared, at most


def moved_examples(n: int, budget: Budget) -> Tensor:
    """Draw the training examples on which the weights are moved.

    Args:
        n: training examples.
        budget: seed.

    Returns:
        (m,) positions, ascending.
    """
    generator = torch.Generator().manual_seed(budget.seed + 7)
    return torch.randperm(n, generator=generator)[:EXAMPLES].sort().values


def _pairs(examples: int) -> int:
    return 64 if examples < EXAMPLES else 8


def _cost(facts: Facts) -> Stage:
    m = min(facts.n, EXAMPLES)
    pairs = _pairs(m)
    products = 0 if facts.first_order else pairs  # the control variate's
    forwards = 2 * len(PREDICTED) * pairs + products + 2
    return Stage("weight noise", m, forwards, 0, 0, "predicted against measured degradation")


@provides(cost=_cost)
def weight_noise(
    task: Task, space: ParameterSpace, outputs: TrainingOutputs, curvature: Curvature, budget: Budget
) -> NoiseCurve:
    """Move all weights at random and measure how the predictions change."""
    index, traces = moved_examples(outputs.n, budget), curvature.trace
    trace = curvature.mean_trace[0] if traces is None else float(traces[index.to(traces.device)].mean())
    return noise_curve(
        task,
        space,
        trace,
        budget,
        exact_trace=traces is not None,
        index=index,
        predicted=PREDICTED,
        pairs=_pairs(len(index)),
    )


def _draws(curve: NoiseCurve, curvature: Curvature) -> str:
    controlled = ", ½σ² εᵀFε as control variate" if curvature.trace is not None else ""
    return f"{curve.draws} antithetic draws{controlled}"


@measure(
    "robustness.kl_ratio_small",
    chapter="robustness",
    unit="1",
    estimator=f"measured over predicted KL at {PREDICTED[SMALL]} nats",
    shown="ratio",
)
def ratio_at_small_noise(curve: NoiseCurve, curvature: Curvature) -> Value:
    """How well the second order predicts a small divergence."""
    measured, half, predicted = (float(x[SMALL]) for x in (curve.kl, curve.kl_margin, curve.predicted))
    ends = max(0.0, (measured - half) / predicted), (measured + half) / predicted
    return Value(measured / predicted, curve.n, ends, how=_draws(curve, curvature))


@measure(
    "robustness.second_order_limit",
    chapter="robustness",
    unit="nats",
    estimator="predicted KL beyond which prediction and measurement differ by more than 10%",
    better="larger",
)
def second_order_limit(curve: NoiseCurve, curvature: Curvature) -> Value | Absent:
    """How far the second order holds."""
    limit = departure(curve)
    if limit.value is None:
        reason = f"prediction and measurement agree within 10% up to {PREDICTED[-1]} nats"
        return Absent(reason, "raise the noise further")
    known = math.isfinite(limit.high)
    note = "" if known else "within its error the two agree over the whole range"
    ends = limit.low, min(limit.high, PREDICTED[-1])
    return Value(limit.value, curve.n, ends, how=_draws(curve, curvature), reliable=known, note=note)


@measure(
    "robustness.sigma_one_percent",
    chapter="robustness",
    unit="weight units",
    estimator="σ that costs 1% accuracy",
    better="larger",
)
def noise_at_one_percent(task: Task, curve: NoiseCurve) -> Value | Absent:
    """Random shift of every weight that costs 1% accuracy."""
    if not task.likelihood.classifies:
        return Absent("the output law has no classes", "read the loss instead")
    fall = sigma_at_accuracy_loss(curve)
    if fall is None:
        return Absent("accuracy does not fall by 1% within the noise tried", "raise the noise further")
    sigma, ends = fall
    note = "" if ends is not None else "its interval leaves the range tried"
    how = f"{curve.draws} antithetic draws"
    return Value(sigma, curve.n, ends, how=how, reliable=ends is not None, note=note)
