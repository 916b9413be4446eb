"""Complexity and leave-one-out at the damping of greatest evidence, next to those at one damping for all networks."""

from __future__ import annotations

from dataclasses import dataclass, replace

from torch import Tensor

from memspace.measures.complexity import information_bits
from memspace.measures.damping import DampingChoice
from memspace.measures.declaration import measure, provides
from memspace.measures.values import Curvature, TrainingOutputs
from memspace.passes.space import ParameterSpace
from memspace.task.task import Task
from memspace.value import Absent, Value

__all__ = [
    "EvidenceDamping",
    "EvidenceLeftOut",
    "damping_of_evidence",
    "effective_parameters_at_evidence",
    "gap_at_evidence",
    "information_at_evidence",
    "left_out_at_evidence",
]


@dataclass(frozen=True)
class EvidenceDamping:
    """The damping of greatest Laplace evidence.

    Args:
        choice: γ, and whether the evidence has a maximum in reach.
    """

    choice: DampingChoice


@dataclass(frozen=True)
class EvidenceLeftOut:
    """Leave-one-out at that damping, of the examples that :class:`TrainingOutputs` has.

    Args:
        influence: (n,) self-influence, nats.
        loss: (n,) loss of each example without itself, nats, summed over positions.
    """

    influence: Tensor
    loss: Tensor


@provides()
def evidence_left_out() -> EvidenceLeftOut | Absent:
    """Say that leave-one-out is read at one damping, where no other is given."""
    reason = "leave-one-out was read at one damping alone"
    return Absent(reason, "measure the network as the zoo does, which reads it at both")


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


@measure(
    "generalisation.tic_gap.evidence",
    chapter="predictors",
    unit="nats",
    estimator="tr((F+γI)⁻¹C)/N at the γ of greatest evidence",
    source="takeuchi1976, thomas2020",
)
def gap_at_evidence(
    outputs: TrainingOutputs, curvature: Curvature, at: EvidenceDamping, left_out: EvidenceLeftOut
) -> Value:
    """Excess of the loss on new data over the training loss, by Takeuchi's criterion."""
    gap = float(left_out.influence.sum()) / outputs.count
    return replace(_at(at, curvature, gap, f"γ={at.choice.value:.2g}; "), n=outputs.n, per=outputs.per)


@measure(
    "generalisation.loo_estimate.evidence",
    chapter="predictors",
    unit="nats",
    estimator="leave-one-out against the labels as given, at the γ of greatest evidence",
    source="rad2020",
    better="smaller",
)
def left_out_at_evidence(
    outputs: TrainingOutputs, curvature: Curvature, at: EvidenceDamping, left_out: EvidenceLeftOut
) -> Value:
    """Mean loss of an example left out, whether its label is right or wrong."""
    loss = float(left_out.loss.sum()) / outputs.count
    return replace(_at(at, curvature, loss, f"γ={at.choice.value:.2g}; "), n=outputs.n, per=outputs.per)


def _at(at: EvidenceDamping, curvature: Curvature, value: float, how: str) -> Value:
    note = "" if at.choice.found else at.choice.statement
    return Value(value, curvature.n, how=f"{how}{curvature.estimator}", reliable=at.choice.found, note=note)
