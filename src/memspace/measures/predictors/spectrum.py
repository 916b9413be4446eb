"""Single numbers of the Fisher spectrum that were proposed as signs of generalisation, and the volume it leaves."""

from __future__ import annotations

import math
from dataclasses import dataclass

from memspace.geometry.volume import admissible_bits
from memspace.measures.declaration import measure, provides
from memspace.measures.spectrum import DirectionCounts
from memspace.measures.values import Curvature, TrainingOutputs
from memspace.metric.metric import FisherMetric
from memspace.passes.space import ParameterSpace
from memspace.value import Absent, Value

__all__ = [
    "AdmissibleBall",
    "effective_dimension",
    "local_effective_dimension",
    "prior_mass",
    "trace_over_examples",
]


@dataclass(frozen=True)
class AdmissibleBall:
    """Which other weights count as good as the network's, and among which.

    Args:
        epsilon: KL(θ*‖θ) at most, nats per example.
        radius: standard deviation of the normal prior around θ*.
    """

    epsilon: float
    radius: float


@provides()
def admissible_ball() -> AdmissibleBall:
    """Take what holds unless another is given: a hundredth of a nat, a tenth of a unit."""
    return AdmissibleBall(0.01, 0.1)


@measure(
    "volume.admissible_bits",
    chapter="predictors",
    unit="bits",
    estimator="−log2 Pr(½δᵀFδ ≤ ε), δ normal, by inversion of the Laplace transform",
)
def prior_mass(curvature: Curvature, directions: DirectionCounts, ball: AdmissibleBall) -> Value:
    """How small a share of the weights around the network's predicts as it does."""
    volume = admissible_bits(directions.values, ball.radius, ball.epsilon)
    how = f"ε={ball.epsilon:g} nats, standard deviation {ball.radius:g}; {curvature.estimator}"
    note = directions.doubt or "second order in the weights' change"
    return Value(volume.bits, curvature.n, how=how, reliable=not directions.doubt, note=note)


@measure(
    "fisher.trace_over_examples",
    chapter="predictors",
    unit="nats",
    estimator="tr F/N, Takeuchi's criterion where gradients' covariance and F agree up to a factor",
    source="takeuchi1976, thomas2020",
)
def trace_over_examples(outputs: TrainingOutputs, curvature: Curvature) -> Value:
    """Sensitivity to noise on the weights per training example."""
    trace = curvature.mean_trace[0] if curvature.trace is None else float(curvature.trace.mean())
    return Value(trace / outputs.n, curvature.n, how=f"N={outputs.n:,}; {curvature.estimator}")


def effective_dimension(metric: FisherMetric, size: int, examples: int) -> float | None:
    """Compute log det(I + κF̂)/log κ with κ = N/(2π log N) and F̂ = P·F/tr F, Abbas et al. 2021 at a single θ.

    It knows the shape of the spectrum alone: a factor on F drops out.

    Args:
        metric: F.
        size: P, number of parameters.
        examples: N.

    Returns:
        the dimension, as exact as the metric's traces; None where F is zero, or κ is at most 1 (few examples).
    """
    trace, scale = metric.trace().value, examples / (2 * math.pi * math.log(examples)) if examples > 1 else 0.0
    if trace <= 0 or scale <= 1:
        return None
    return metric.trace(lambda x: (x * (scale * size / trace)).log1p()).value / math.log(scale)


@measure(
    "fisher.effective_dimension",
    chapter="predictors",
    unit="1",
    estimator="log det(I+κF̂)/log κ at the trained weights, κ = N/(2π log N)",
    source="abbas2021",
)
def local_effective_dimension(space: ParameterSpace, outputs: TrainingOutputs, curvature: Curvature) -> Value | Absent:
    """How many parameters count at this number of examples, whatever the size of F."""
    value = effective_dimension(curvature.metric, space.size, outputs.n)
    if value is None:
        return Absent("there are too few examples, or no prediction depends on the weights", "give 20 examples or more")
    return Value(value, curvature.n, how=f"N={outputs.n:,}; {curvature.estimator}")
