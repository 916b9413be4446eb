"""What measures of one network of the zoo stand on: outputs on all examples, the metric on a sample of them.

The exact dual (:mod:`memspace.metric.sampled`) of as many examples as ``ZooSettings.rows`` allows. A sequence would
make a row for every output of every position: there the rows are those of a few sampled labels (unbiased), and
leave-one-out is of first order.
"""

from __future__ import annotations

from collections.abc import Mapping
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
from memspace.metric.fisher import build
from memspace.metric.sampled import left_out_influence, sampled_dual
from memspace.passes.collect import CollectRows
from memspace.passes.engine import PassOptions, run_pass
from memspace.passes.outputs import outputs
from memspace.passes.rows import Rows
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
    """

    whole: Values
    drawn: Values
    layers: Mapping[str, tuple[Any, ...]]


@dataclass(frozen=True)
class _Sampled:
    """Metric and leave-one-out of the sample."""

    metric: Dual
    trace: Tensor  # (m,) tr F of each example, or an unbiased estimate of it
    how: str
    influence: Tensor  # (m,) self-influence
    losses: Tensor  # (m,) leave-one-out losses, summed over positions
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
    diagonal = sampled.metric.diagonal()
    curvature = _curvature(sampled, diagonal)
    common: Values = {
        Task: task,
        ParameterSpace: space,
        Budget: Budget(settings.seed, settings.memory, Silent()),
        Curvature: curvature,
        DampingChoice: DampingChoice.given(settings.damping),
        HeldOut: NO_REFITS,
        TestOutputs: NO_TEST_DATA,
        Judged: Absent(),  # labels are judged with refits, which are as dear as the network
    }
    left_out: Values = {
        TrainingOutputs: drawn,
        SelfInfluence: SelfInfluence(sampled.influence.unsqueeze(1)),
        LeaveOneOutLosses: LeaveOneOutLosses(sampled.losses),
        LeaveOneOutOutputs: sampled.outputs,
    }
    layers: dict[str, tuple[Any, ...]] = {
        "layer": tuple(b.name or "model" for b in space.blocks),
        "parameters": tuple(b.size for b in space.blocks),
        "fisher_trace": tuple(float(b.view(diagonal).sum()) for b in space.blocks),
    }
    return NetworkReading({**common, TrainingOutputs: whole}, {**common, **left_out}, layers)


def _outputs(task: Task, f: Tensor, y: Tensor) -> TrainingOutputs:
    law = task.likelihood
    return TrainingOutputs(f, y, by_example(law.nll(f.double(), y)), law.weight(f, y))


def _drawn(whole: TrainingOutputs, settings: ZooSettings) -> Tensor:
    """Places of the sample, in order: all examples where their rows are allowed."""
    cost = settings.labels if whole.sequence else whole.f.shape[1]
    count = min(whole.n, max(1, settings.rows // cost))
    order = torch.randperm(whole.n, generator=torch.Generator().manual_seed(settings.seed + 21))
    return order[:count].sort().values


def _curvature(sampled: _Sampled, diagonal: Tensor) -> Curvature:
    trace, metric = sampled.trace, sampled.metric
    exact = metric.kind == "exact"
    error = float(trace.std()) / len(trace) ** 0.5 if len(trace) > 1 else 0.0
    mean = float(trace.mean()), 0.0 if exact else error
    per_example = trace if exact else None
    return Curvature(metric, diagonal, layer_traces(metric), per_example, mean, None, sampled.how, len(trace))


def _of_examples(
    task: Task, space: ParameterSpace, index: Tensor, drawn: TrainingOutputs, settings: ZooSettings
) -> _Sampled:
    """By the exact dual, whose leave-one-out is one Newton step."""
    of, gamma, law = len(task.train), settings.damping, task.likelihood
    options = PassOptions(index=index, seed=settings.seed)
    exact = sampled_dual(task, read_jacobian(task, space, options), of)
    leverage = exact.leverage.matrices(gamma)
    loo = loo_outputs(law, drawn.f, drawn.y, leverage)
    influence = self_influence(law, drawn.f, drawn.y, leverage)
    how = f"exact dual, {_counted(len(exact.metric.rows), index, of)}"
    return _Sampled(exact.metric, exact.trace, how, influence, law.nll(loo, drawn.y), LeaveOneOutOutputs(loo))


def _of_sequences(
    task: Task, space: ParameterSpace, index: Tensor, drawn: TrainingOutputs, settings: ZooSettings
) -> _Sampled:
    """By the dual of sampled labels; leave-one-out of first order."""
    of, labels, seed = len(task.train), settings.labels, settings.seed
    metric = build(task, space, "dual", kind="mc", samples=labels, index=index, seed=seed, memory=settings.memory)
    assert isinstance(metric, Dual)
    whole, without = left_out_influence(metric, _gradients(task, space, index), settings.damping, of)
    sizes = sum((metric.rows.norms(b) for b in space.blocks), torch.zeros(len(metric.rows), dtype=torch.float64))
    trace = torch.zeros(len(index), dtype=torch.float64).index_add_(0, metric.rows.example.cpu(), sizes.cpu())
    how = f"dual of {labels} sampled labels per example, {_counted(len(metric.rows), index, of)}"
    return _Sampled(metric, trace, how, whole, first_order_losses(drawn.loss, without), NO_LEVERAGE)


def _gradients(task: Task, space: ParameterSpace, index: Tensor) -> Rows:
    """A row an example: the gradient of its loss, summed over positions."""
    rows = CollectRows(space.blocks, "empirical")
    run_pass(task, space, [rows], PassOptions(index=index, what="gradients"))
    return rows.finish()


def _counted(rows: int, index: Tensor, of: int) -> str:
    drawn = "all" if len(index) == of else f"{len(index):,} drawn of"
    return f"{rows:,} Fisher rows of {drawn} {of:,} examples"
