"""Complexity of a trained network, counted in four ways that are never mixed (see docs/theory.md)."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from memspace.geometry.distance import output_distance
from memspace.intervals import around
from memspace.measures.cost import Facts, Stage
from memspace.measures.damping import DampingChoice
from memspace.measures.declaration import measure, provides
from memspace.measures.values import Budget, Curvature, TrainingOutputs
from memspace.metric.metric import FisherMetric
from memspace.passes.linearise import FisherOperator
from memspace.passes.outputs import outputs
from memspace.passes.space import ParameterSpace
from memspace.task.likelihood import Likelihood
from memspace.task.task import Task
from memspace.value import Absent, Value

__all__ = [
    "GAINS",
    "DescriptionLength",
    "FirstOrderChange",
    "description_bits",
    "fisher_rao_norm",
    "gain_curve",
    "information_bits",
]

LN2 = math.log(2.0)
NORM_EXAMPLES = 5000  # whose outputs' first-order change is read
GAINS = np.logspace(-1, 1, 21)


def fisher_rao_norm(likelihood: Likelihood, f: Tensor, y: Tensor, moved: Tensor) -> tuple[Tensor, Tensor]:
    """Compute the terms of θᵀFθ per example, with the model's Fisher information and in the empirical form.

    The empirical form is that of Liang et al. 2019, equation 8.

    Args:
        likelihood: the output law.
        f: (n, ..., C) outputs.
        y: labels.
        moved: (n, ..., C) Jθ per example.

    Returns:
        two tensors (n,) in nats: exact, and empirical.
    """
    f, moved = f.double(), moved.double()
    weight = likelihood.weight(f, y).unsqueeze(-1)
    exact = (moved * likelihood.fisher_matvec(f, moved) * weight).flatten(1).sum(1)
    residual = (likelihood.residual(f, y) * moved).flatten(1).sum(1)
    return exact, residual.square()


def gain_curve(likelihood: Likelihood, f: Tensor, y: Tensor, moved: Tensor, gains: np.ndarray) -> np.ndarray:
    """Compute θᵀFθ after the last layer is multiplied by each gain: accuracy never changes, every Fisher quantity does.

    Args:
        likelihood: the output law.
        f: (n, ..., C) outputs.
        y: labels.
        moved: (n, ..., C) Jθ per example.
        gains: (G,) factors c.

    Returns:
        (G,) means over the examples, nats.
    """
    out = []
    for c in gains:
        exact, _ = fisher_rao_norm(likelihood, c * f.double(), y, c * moved.double())
        out.append(float(exact.mean()))
    return np.asarray(out)


def information_bits(metric: FisherMetric, damping: float) -> float:
    """Compute ½ Σ log2(1 + λ_k/γ), the information that the weights took from the data under the prior N(0, I/α).

    Args:
        metric: F, of eigenvalues λ.
        damping: γ = α/N.

    Returns:
        bits; as exact as the metric's trace.
    """
    return metric.trace(lambda x: torch.log1p(x / damping)).value / (2 * LN2)


def description_bits(
    loss: float, n: int, theta: Tensor, metric: FisherMetric, damping: float
) -> tuple[float, float, float]:
    """Compute the length of the labels coded with this network: residual loss, weights, and the weights' precision.

    The Laplace evidence code: N·L + ½ α‖θ‖² + ½ log det(I + F/γ) with α = Nγ (MacKay 1992).

    Args:
        loss: L, mean training loss, nats.
        n: N, training examples.
        theta: (P,) weights.
        metric: F.
        damping: γ.

    Returns:
        the three terms, bits.
    """
    residual = n * loss / LN2
    prior = 0.5 * n * damping * float(theta.double().square().sum()) / LN2
    return residual, prior, information_bits(metric, damping)


@dataclass(frozen=True)
class FirstOrderChange:
    """The change of the outputs to first order when all weights grow in proportion.

    Args:
        f: (m, ..., C) outputs.
        y: labels.
        moved: (m, ..., C) Jθ.
    """

    f: Tensor
    y: Tensor
    moved: Tensor


@dataclass(frozen=True)
class DescriptionLength:
    """Bits to send the training labels.

    Args:
        residual: given the network.
        weights: of the weights against their prior.
        precision: to which the weights must be sent.
        null: by the class frequencies alone, without a network.
        saved: share of what the labels cost without a network that the network saves, its weights paid for; NaN where
            the labels cost nothing.
        evidence: one sentence for people.
    """

    residual: float
    weights: float
    precision: float
    null: float
    saved: float
    evidence: str

    @property
    def total(self) -> float:
        """Bits with the network, its weights included."""
        return self.residual + self.weights + self.precision


def _norm_cost(facts: Facts) -> Stage:
    return Stage("Fisher–Rao norm", min(facts.n, NORM_EXAMPLES), 1, 0, 0, "complexity")


@provides(cost=_norm_cost)
def first_order_change(task: Task, space: ParameterSpace, outputs: TrainingOutputs, budget: Budget) -> FirstOrderChange:
    """Compute Jθ on a random subset of the training data, by one pass in forward mode."""
    generator = torch.Generator().manual_seed(budget.seed + 6)
    index = torch.randperm(outputs.n, generator=generator)[:NORM_EXAMPLES].sort().values
    columns = FisherOperator(task, space, index=index).directional(space.flat(task.model))
    return FirstOrderChange(columns["f"], columns["y"], columns["moved"])


@provides()
def description_length(
    task: Task, space: ParameterSpace, outputs: TrainingOutputs, curvature: Curvature, damping: DampingChoice
) -> DescriptionLength:
    """Count the bits of the labels with and without the network."""
    law, theta = task.likelihood, space.flat(task.model)
    loss = float(outputs.loss.mean())
    residual, weights, precision = description_bits(loss, outputs.n, theta, curvature.metric, damping.value)
    null = float(law.nll(_null_outputs(law, outputs).double(), outputs.y).sum()) / LN2
    total = residual + weights + precision
    sigma = law.scale(outputs.f.double())
    if sigma is not None:
        saved, evidence = _variance_saved(sigma, outputs, weights, precision)
    else:
        saved = 1 - total / null if null > 0 else math.nan
        evidence = f"{total:,.0f} bits with the network, its weights included; {null:,.0f} bits by frequencies alone."
    return DescriptionLength(residual, weights, precision, null, saved, evidence)


def _null_outputs(law: Likelihood, outputs: TrainingOutputs) -> Tensor:
    """The outputs of class frequencies (or of the targets' mean) for every example, in the shape of ``f``."""
    null = law.null_output(outputs.y.cpu(), outputs.f.shape[-1]).to(outputs.f)
    return null.expand(*outputs.f.shape)


def _variance_saved(sigma: Tensor, outputs: TrainingOutputs, weights: float, precision: float) -> tuple[float, str]:
    """What a network with normal noise σ saves as a code of its targets, in their variance: 1 − 4^(−bits a target).

    Both codes use the σ that suits them best, so that neither the targets' unit nor the law's σ matters. If weights
    cost nothing, it would be R².
    """
    y, f = outputs.y.double(), outputs.f.double()
    residual = (y - f).reshape(-1, y.shape[-1])
    targets = y.reshape(-1, y.shape[-1])
    left, null = residual.square().mean(0), targets.var(0, correction=0)
    if not bool((null > 0).all()):
        return 0.0, "The targets do not vary."
    left = torch.maximum(left, 1e-12 * null)
    prior = sigma.expand(len(left)).square()
    bits = 0.5 * len(targets) * float(torch.log2(null / left).sum())
    cost = precision + weights * float((prior / left).log().mean().exp())
    saved = (bits - cost) / targets.numel()
    share = 1 - 4.0 ** -min(max(saved, -50.0), 500.0)
    return share, f"{bits:,.0f} bits saved on the targets, {cost:,.0f} bits for the network's weights."


@measure(
    "complexity.fisher_rao",
    chapter="complexity",
    unit="nats",
    estimator="θᵀFθ, exact Fisher information, one forward-mode pass",
    source="liang2019",
)
def norm_of_weights(task: Task, change: FirstOrderChange) -> Value:
    """Squared length of the weights in the Fisher metric."""
    exact, _ = fisher_rao_norm(task.likelihood, change.f, change.y, change.moved)
    return Value.mean(exact.tolist(), lower=0.0)


@measure(
    "complexity.fisher_rao.empirical",
    chapter="complexity",
    unit="nats",
    estimator="training labels (empirical form): not the Fisher information",
    source="liang2019 [eq. 8]",
)
def empirical_norm_of_weights(task: Task, change: FirstOrderChange) -> Value:
    """The same with the training labels in place of the model's own, as its authors computed it."""
    _, empirical = fisher_rao_norm(task.likelihood, change.f, change.y, change.moved)
    return Value.mean(empirical.tolist(), lower=0.0)


@measure(
    "complexity.information",
    chapter="complexity",
    unit="bits",
    estimator="½ Σ log2(1+λ/γ)",
    source="mackay1992",
)
def information(curvature: Curvature, damping: DampingChoice) -> Value:
    """Information that the weights took from the data under the prior N(0, I/α), α = Nγ."""
    return _at_damping(curvature, damping, lambda g: information_bits(curvature.metric, g))


@measure(
    "complexity.effective_parameters",
    chapter="complexity",
    unit="1",
    estimator="Σ λ/(λ+γ)",
    source="mackay1992",
)
def effective_parameters(curvature: Curvature, damping: DampingChoice) -> Value:
    """How many directions of the weights the data determine, rather than the prior."""
    return _at_damping(curvature, damping, lambda g: curvature.metric.effective_dimension(g).value)


def _at_damping(curvature: Curvature, damping: DampingChoice, count: Callable[[float], float]) -> Value:
    """A function of γ at the damping used; its range over half to twice γ is not a 95% interval but a note."""
    g = damping.value
    low, high = sorted((count(2 * g), count(g / 2)))
    note = f"exact for this metric and γ; {low:.3g} to {high:.3g} with γ doubled and halved"
    how = f"γ={g:.2g}; {curvature.estimator}"
    return Value(count(g), curvature.n, how=how, reliable=damping.found, note=note)


@measure(
    "complexity.distance_from_null",
    chapter="complexity",
    unit="nats^½",
    estimator="ambient Fisher–Rao distance to the class prior (lower bound of the geodesic)",
    source="rao1945",
)
def distance_from_null(task: Task, outputs: TrainingOutputs) -> Value:
    """How far the predictions are from those of the class frequencies alone."""
    law = task.likelihood
    distance = output_distance(law, _null_outputs(law, outputs), outputs.f, outputs.weight)
    return Value(distance[0], outputs.n, around(*distance, lower=0.0))


@measure(
    "complexity.description_length",
    chapter="complexity",
    unit="bits",
    estimator="Laplace evidence code",
    source="mackay1992, rissanen1996",
    better="smaller",
)
def bits_with_network(outputs: TrainingOutputs, damping: DampingChoice, length: DescriptionLength) -> Value:
    """Bits to send the training labels with the network, its weights included."""
    how = f"residual {length.residual:.0f} + weights {length.weights:.0f} + precision {length.precision:.0f}"
    return Value(length.total, outputs.n, how=how, reliable=damping.found)


@measure(
    "complexity.null_code",
    chapter="complexity",
    unit="bits",
    estimator="labels sent with the class prior alone",
)
def bits_without_network(outputs: TrainingOutputs, length: DescriptionLength) -> Value:
    """Bits to send the training labels by their frequencies."""
    return Value(length.null, outputs.n)


def _initial_cost(facts: Facts) -> Stage | None:
    if not facts.checkpoints:
        return None
    return Stage("initialisation", facts.n, 1, 0, 0, "distance travelled")


@measure(
    "complexity.distance_from_initialisation",
    chapter="complexity",
    unit="nats^½",
    estimator="ambient Fisher–Rao distance (lower bound of the geodesic)",
    source="rao1945",
    cost=_initial_cost,
)
def distance_from_initialisation(task: Task, after: TrainingOutputs) -> Value | Absent:
    """How far training moved the predictions."""
    if task.run is None:
        return Absent("the initialisation is not known", "pass the recorded checkpoints: Task(run=...)")
    start, _ = outputs(task, task.train, state=task.run.states[0])
    distance = output_distance(task.likelihood, start, after.f, after.weight)
    return Value(distance[0], after.n, around(*distance, lower=0.0))


@dataclass(frozen=True)
class NormByGain:
    """The Fisher–Rao norm θᵀFθ as a function of the last layer's scale.

    Args:
        norms: nats, after the last layer is multiplied by each of :data:`GAINS`.
    """

    norms: np.ndarray


@provides()
def norm_by_gain(task: Task, change: FirstOrderChange) -> NormByGain | Absent:
    """Read how the Fisher–Rao norm follows the gain of the last layer, which changes no decision."""
    law = task.likelihood
    if not law.gain_free:
        return Absent()
    return NormByGain(gain_curve(law, change.f, change.y, change.moved, GAINS))


@measure(
    "complexity.gain_nuisance_range",
    chapter="complexity",
    unit="1",
    estimator="largest over smallest θᵀFθ while the last layer's gain runs over 0.1..10 at unchanged accuracy",
    shown="ratio",
)
def range_over_gains(change: FirstOrderChange, by_gain: NormByGain) -> Value:
    """How much of the Fisher–Rao norm depends on the last layer's gain."""
    norms = by_gain.norms
    return Value(float(norms.max() / max(norms.min(), 1e-300)), len(change.f))


@measure(
    "complexity.labels_compressed",
    chapter="complexity",
    unit="1",
    estimator="share saved of what the labels cost without a network, after paying for the network's weights",
    better="larger",
    shown="share",
)
def labels_compressed(outputs: TrainingOutputs, damping: DampingChoice, length: DescriptionLength) -> Value | None:
    """Whether the network has found a rule, or stores the labels one by one."""
    if not math.isfinite(length.saved):
        return None
    note = "exact for these data and this damping"
    return Value(length.saved, outputs.n, reliable=damping.reliable, note=note)
