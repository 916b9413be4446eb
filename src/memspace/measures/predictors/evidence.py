"""Complexity at the damping of greatest evidence, next to the one at a damping that is the same for all networks."""

from __future__ import annotations

from dataclasses import dataclass

from memspace.measures.complexity import information_bits
from memspace.measures.damping import DampingChoice
from memspace.measures.declaration import measure, provides
from memspace.measures.values import Curvature, TrainingOutputs
from memspace.passes.space import ParameterSpace
from memspace.task.task import Task
from memspace.value import Value

__all__ = [
    "EvidenceDamping",
    "damping_of_evidence",
    "effective_parameters_at_evidence",
    "information_at_evidence",
]


@dataclass(frozen=True)
class EvidenceDamping:
    """The damping of greatest Laplace evidence.

    Args:
        choice: γ, and whether the evidence has a maximum in reach.
    """

    choice: DampingChoice


@provides()
def evidence_damping(
    task: Task, space: ParameterSpace, outputs: TrainingOutputs, curvature: Curvature
) -> EvidenceDamping:
    """Find the γ at which Nγ‖θ‖² is the number of effective parameters."""
    return EvidenceDamping(DampingChoice.evidence(curvature.metric, space.flat(task.model), outputs.n))


@measure(
    "damping.evidence",
    chapter="predictors",
    unit="nats",
    estimator="γ of greatest Laplace evidence",
    source="mackay1992",
)
def damping_of_evidence(curvature: Curvature, at: EvidenceDamping) -> Value:
    """Prior precision per example that the training data ask for."""
    return _at(at, curvature, at.choice.value, "")


@measure(
    "complexity.information.evidence",
    chapter="predictors",
    unit="bits",
    estimator="½ Σ log2(1+λ/γ) at the γ of greatest evidence",
    source="mackay1992",
)
def information_at_evidence(curvature: Curvature, at: EvidenceDamping) -> Value:
    """Information that the weights took from the data under the prior that suits them best."""
    bits = information_bits(curvature.metric, at.choice.value)
    return _at(at, curvature, bits, f"γ={at.choice.value:.2g}; ")


@measure(
    "complexity.effective_parameters.evidence",
    chapter="predictors",
    unit="1",
    estimator="Σ λ/(λ+γ) at the γ of greatest evidence",
    source="mackay1992",
)
def effective_parameters_at_evidence(curvature: Curvature, at: EvidenceDamping) -> Value:
    """How many directions the data determine under the prior that suits the weights best."""
    count = curvature.metric.effective_dimension(at.choice.value).value
    return _at(at, curvature, count, f"γ={at.choice.value:.2g}; ")


def _at(at: EvidenceDamping, curvature: Curvature, value: float, how: str) -> Value:
    note = "" if at.choice.found else at.choice.statement
    return Value(value, curvature.n, how=f"{how}{curvature.estimator}", reliable=at.choice.found, note=note)
