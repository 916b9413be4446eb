"""How much each training example is stored: self-influence, and the rise of its loss without itself."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from memspace.measurement import Unmeasured
from memspace.measures.damping import DampingChoice
from memspace.measures.declaration import measure, provides, table
from memspace.measures.expected import LeaveOneOutDoubt
from memspace.measures.values import Curvature, LeaveOneOutLosses, LeaveOneOutOutputs, SelfInfluence, TrainingOutputs
from memspace.metric.trust import FIDELITY, beyond
from memspace.task.task import Task
from memspace.value import Value

__all__ = [
    "InfluenceDoubt",
    "example_columns",
    "loo_loss_rise",
    "most_memorised",
    "self_influence",
    "top_count",
    "top_percent_share",
]


@dataclass(frozen=True)
class InfluenceDoubt:
    """Why the metric behind influence is not reliable.

    Args:
        reason: empty where nothing speaks against it.
    """

    reason: str


@provides()
def doubt_of_influence(curvature: Curvature) -> InfluenceDoubt:
    """Compare an approximate metric with exact Fisher products."""
    name, fidelity = curvature.metric.representation, curvature.fidelity
    if fidelity is None:
        return InfluenceDoubt("")
    if isinstance(fidelity, Unmeasured):
        return InfluenceDoubt(f"{name} was not compared with exact products")
    return InfluenceDoubt(beyond(fidelity.relative_error, FIDELITY, f"the relative error of {name}"))


def most_memorised(influence: SelfInfluence) -> Tensor:
    """Return the positions (n,) of the training examples, the most memorised first.

    Args:
        influence: self-influence of every example.

    Returns:
        positions in the training data.
    """
    return influence.total.argsort(descending=True)


def top_count(n: int) -> int:
    """Return how many examples the top 1% are, one at least.

    Args:
        n: training examples.

    Returns:
        a count.
    """
    return max(1, n // 100)


@measure("memory.self_influence", chapter="stored", unit="nats", estimator="gᵀM⁻¹g", source="koh2017")
def self_influence(
    outputs: TrainingOutputs,
    influence: SelfInfluence,
    curvature: Curvature,
    damping: DampingChoice,
    doubt: InfluenceDoubt,
) -> Value:
    """How much an example lowers its own loss by having been trained on, to first order."""
    how = f"γ={damping.value:.2g}; {curvature.estimator}"
    return _doubted(influence.total, how, outputs, doubt.reason)


@measure(
    "memory.loo_loss_rise",
    chapter="stored",
    unit="nats",
    estimator="leave-one-out loss less training loss",
    source="rad2020",
)
def loo_loss_rise(
    outputs: TrainingOutputs,
    without: LeaveOneOutLosses,
    loss_doubt: LeaveOneOutDoubt,
    doubt: InfluenceDoubt,
    loo: LeaveOneOutOutputs | None,
) -> Value:
    """How much an example's loss rises when it is left out."""
    first_order = loo is None
    reason = loss_doubt.reason or (doubt.reason if first_order else "")
    how = "first order: self-influence" if first_order else ""
    return _doubted(without.loss - outputs.loss, how, outputs, reason)


def _doubted(samples: Tensor, how: str, outputs: TrainingOutputs, doubt: str) -> Value:
    """The mean over the examples, not reliable where there is a doubt."""
    mean = Value.mean(samples.tolist(), how=how, note=doubt, per="example" if outputs.sequence else "")
    return replace(mean, reliable=mean.reliable and not doubt)


@measure(
    "memory.top_percent_share",
    chapter="stored",
    unit="1",
    estimator="share of all self-influence held by the top 1% of examples",
    shown="share",
)
def top_percent_share(influence: SelfInfluence, damping: DampingChoice) -> Value:
    """Share of all self-influence that belongs to the top 1% of the examples."""
    total = influence.total
    share = float(total[most_memorised(influence)[: top_count(len(total))]].sum() / total.sum())
    return Value(share, len(total), reliable=damping.reliable, note="exact for these data and this damping")


@table("examples", {"train_loss": "nats", "self_influence": "nats", "loo_loss": "nats"})
def example_columns(
    task: Task, outputs: TrainingOutputs, influence: SelfInfluence, without: LeaveOneOutLosses
) -> dict[str, list[Any]]:
    """Return each training example's losses, self-influence, label and prediction."""
    columns: dict[str, list[Any]] = {
        "index": task.train.numbers(torch.arange(outputs.n)).tolist(),
        "train_loss": outputs.loss.tolist(),
        "self_influence": influence.total.tolist(),
        "loo_loss": without.loss.tolist(),
    }
    if outputs.classes:
        columns["label"] = outputs.y.tolist()
        columns["predicted"] = task.likelihood.predict(outputs.f).tolist()
    return columns
