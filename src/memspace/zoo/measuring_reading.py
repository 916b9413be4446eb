"""What measures of one network of the zoo stand on: outputs on all examples, the metric on a sample of them.

The exact dual (:mod:`memspace.metric.sampled`) of as many examples as ``ZooSettings.rows`` allows. A sequence would
make a row for every output of every position: there the rows are those of a few sampled labels (unbiased), and
leave-one-out is of first order.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from memspace.auditing.exact_backend import layer_traces
from memspace.auditing.reading import NO_LEVERAGE, NO_REFITS, NO_TEST_DATA
from memspace.measures.correct import by_example
from memspace.measures.damping import DampingChoice
from memspace.measures.judge import Judged
from memspace.measures.leave_one_out import first_order_losses, loo_outputs, self_influence
from memspace.measures.predictors.evidence import EvidenceDamping, EvidenceLeftOut
from memspace.measures.values import (
    Budget,
    Curvature,
    HeldOut,
    LeaveOneOutLosses,
    LeaveOneOutOutputs,
    SelfInfluence,
    TestOutputs,
    TrainingOutputs,
)
from memspace.metric.dual import Dual
from memspace.metric.exact import read_jacobian
from memspace.metric.sampled import labels_dual, sampled_dual
from memspace.passes.engine import PassOptions
from memspace.passes.outputs import outputs
from memspace.passes.space import ParameterSpace
from memspace.progress import Silent
from memspace.task.task import Task
from memspace.value import Absent
from memspace.zoo.measuring_settings import ZooSettings

__all__ = ["NetworkReading", "read_network"]

Values = Mapping[Any, object]


@dataclass(frozen=True)
class NetworkReading:
    """The values that measures need.

    Args:
        whole: by type, with outputs on all training examples.
        drawn: likewise, with outputs, influence and leave-one-out on the sample.
        layers: columns ``layer``, ``parameters``, ``fisher_trace``: each layer's part of tr F, nats.
        doubt: why numbers of examples left out are not to be taken at face value; empty where all examples are read.
    """

    whole: Values
    drawn: Values
    layers: Mapping[str, tuple[Any, ...]]
    doubt: str


@dataclass(frozen=True)
class _Sampled:
    """Metric and leave-one-out of the sample."""

    metric: Dual
    trace: Tensor  # (m,) tr F of each example, or an unbiased estimate of it
    layers: Tensor  # (L,) tr F by block
    how: str
    left_out: Callable[[float], _LeftOut]  # by γ


@dataclass(frozen=True)
class _LeftOut:
    """Leave-one-out of the sample at one damping."""

    influence: Tensor  # (m,) self-influence
    losses: Tensor  # (m,) without the example, summed over positions
    outputs: LeaveOneOutOutputs | Absent


def read_network(task: Task, space: ParameterSpace, settings: ZooSettings) -> NetworkReading:
    """Read outputs and metric in two passes.

    Args:
        task: the network and its data.
        space: the parameters, laid out in blocks.
        settings: of the zoo.

    Returns:
        the values.
    """
    f, y = outputs(task, task.train)
    whole = _outputs(task, f, y)
    index = _drawn(whole, settings)
    drawn = _outputs(task, f[index], y[index])
    read = _of_sequences if whole.sequence else _of_examples
    sampled = read(task, space, index, drawn, settings)
    evidence = DampingChoice.evidence(sampled.metric, space.flat(task.model), whole.n)
    at_fixed, at_evidence = sampled.left_out(settings.damping), sampled.left_out(evidence.value)
    common: Values = {
        Task: task,
        ParameterSpace: space,
        Budget: Budget(settings.seed, settings.memory, Silent()),
        Curvature: _curvature(sampled),
        DampingChoice: DampingChoice.given(settings.damping),
        EvidenceDamping: EvidenceDamping(evidence),
        HeldOut: NO_REFITS,
        TestOutputs: NO_TEST_DATA,
        Judged: Absent(),  # labels are judged with refits, which are as dear as the network
    }
    left_out: Values = {
        TrainingOutputs: drawn,
        SelfInfluence: SelfInfluence(at_fixed.influence.unsqueeze(1)),
        LeaveOneOutLosses: LeaveOneOutLosses(at_fixed.losses),
        LeaveOneOutOutputs: at_fixed.outputs,
        EvidenceLeftOut: EvidenceLeftOut(at_evidence.influence, at_evidence.losses),
    }
    layers: dict[str, tuple[Any, ...]] = {
        "layer": tuple(b.name or "model" for b in space.blocks),
        "parameters": tuple(b.size for b in space.blocks),
        "fisher_trace": tuple(sampled.layers.tolist()),
    }
    return NetworkReading({**common, TrainingOutputs: whole}, {**common, **left_out}, layers, _doubt(drawn, whole))


def _outputs(task: Task, f: Tensor, y: Tensor) -> TrainingOutputs:
    law = task.likelihood
    return TrainingOutputs(f, y, by_example(law.nll(f.double(), y)), law.weight(f, y))


def _doubt(drawn: TrainingOutputs, whole: TrainingOutputs) -> str:
    """On digits a third of the examples made the rise of the loss twice too large, a sixth three to four times."""
    if drawn.n == whole.n:
        return ""
    read = f"{drawn.n:,} of {whole.n:,} examples stand for all"
    return f"{read}: directions that only the others determine look free, and leaving an example out looks too costly"


def _drawn(whole: TrainingOutputs, settings: ZooSettings) -> Tensor:
    """Places of the sample, in order: all examples where their rows are allowed."""
    cost = settings.labels if whole.sequence else whole.f.shape[1]
    count = min(whole.n, settings.examples, max(1, settings.rows // cost))
    order = torch.randperm(whole.n, generator=torch.Generator().manual_seed(settings.seed + 21))
    return order[:count].sort().values


def _curvature(sampled: _Sampled) -> Curvature:
    trace, metric = sampled.trace, sampled.metric
    exact = metric.kind == "exact"
    error = float(trace.std()) / len(trace) ** 0.5 if len(trace) > 1 else 0.0
    mean = float(trace.mean()), 0.0 if exact else error
    layers, per_example = layer_traces(metric), trace if exact else None
    return Curvature(metric, metric.diagonal, layers, per_example, mean, None, sampled.how, len(trace))


def _of_examples(
    task: Task, space: ParameterSpace, index: Tensor, drawn: TrainingOutputs, settings: ZooSettings
) -> _Sampled:
    """By the exact dual, whose leave-one-out is one Newton step."""
    of, law = len(task.train), task.likelihood
    exact = sampled_dual(task, read_jacobian(task, space, PassOptions(index=index, seed=settings.seed)), of)

    def left_out(gamma: float) -> _LeftOut:
        leverage = exact.leverage.matrices(gamma)
        loo = loo_outputs(law, drawn.f, drawn.y, leverage)
        influence = self_influence(law, drawn.f, drawn.y, leverage)
        return _LeftOut(influence, law.nll(loo, drawn.y), LeaveOneOutOutputs(loo))

    how = f"exact dual, {_counted(exact.metric, index, of)}"
    return _Sampled(exact.metric, exact.trace, exact.layers, how, left_out)


def _of_sequences(
    task: Task, space: ParameterSpace, index: Tensor, drawn: TrainingOutputs, settings: ZooSettings
) -> _Sampled:
    """By the dual of sampled labels; leave-one-out of first order."""
    of, labels = len(task.train), settings.labels
    dual = labels_dual(task, space, index, labels, of=of, options=PassOptions(seed=settings.seed))

    def left_out(gamma: float) -> _LeftOut:
        once, without = dual.influence(gamma)
        return _LeftOut(once, first_order_losses(drawn.loss, without), NO_LEVERAGE)

    how = f"dual of {labels} sampled labels per example, {_counted(dual.metric, index, of)}"
    return _Sampled(dual.metric, dual.trace, dual.layers, how, left_out)


def _counted(metric: Dual, index: Tensor, of: int) -> str:
    drawn = "all" if len(index) == of else f"{len(index):,} drawn of"
    return f"{len(metric.rows):,} Fisher rows of {drawn} {of:,} examples"
