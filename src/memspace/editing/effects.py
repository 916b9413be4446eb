"""What an edit does: predicted from the metric, measured at the edited weights."""

from __future__ import annotations

import math
from collections.abc import Mapping

from torch import Tensor

from memspace.measurement import Measurement, Unmeasured, from_samples, from_share
from memspace.passes.linearise import FisherOperator
from memspace.passes.outputs import outputs
from memspace.passes.space import ParameterSpace
from memspace.task.data import Data
from memspace.task.task import Task

__all__ = ["accuracy_of", "divergence", "effects_of", "groups_of", "losses", "outputs_with"]

PREDICTED = "½ ‖Δθ‖²_F over these examples, one exact product"
MEASURED = "KL of the output law before and after, mean over these examples"


def groups_of(task: Task, index: Tensor, kept: Tensor) -> dict[str, tuple[Data, Tensor | None]]:
    """List the groups of examples that an edit is measured on: forgotten, retained and unseen.

    Args:
        task: the data.
        index: positions of the examples it is about.
        kept: positions of the retained ones.

    Returns:
        name → (data, positions; None for all of them); what is empty is not there.
    """
    groups: dict[str, tuple[Data, Tensor | None]] = {}
    if len(index):
        groups["forgotten"] = (task.train, index)
    groups["retained"] = (task.train, kept)
    if task.test is not None:
        assert isinstance(task.test, Data)
        groups["unseen"] = (task.test, None)
    return groups


def per_example(values: Tensor) -> Tensor:
    """Sum over positions.

    Args:
        values: (n, ...).

    Returns:
        (n,).
    """
    return values.reshape(len(values), -1).sum(1)


def outputs_with(
    task: Task, data: Data, index: Tensor | None, state: Mapping[str, Tensor] | None
) -> tuple[Tensor, Tensor]:
    """Compute outputs with a whole state dict's weights; a shared parameter is given once, under its first name.

    Args:
        task: the network.
        data: examples.
        index: positions among them; None: all.
        state: the weights; None: the model's own.

    Returns:
        outputs (n, ..., C) and labels (n, ...).
    """
    if state is not None:
        names = {n for n, _ in (*task.model.named_parameters(), *task.model.named_buffers())}
        state = {k: v for k, v in state.items() if k in names}
    return outputs(task, data, state=state, index=index)


def losses(task: Task, data: Data, index: Tensor | None, state: Mapping[str, Tensor] | None = None) -> Tensor:
    """Compute each example's loss.

    Args:
        task: the network and its law.
        data: examples.
        index: positions among them; None: all.
        state: the weights; None: the model's own.

    Returns:
        (n,) nats, summed over positions.
    """
    f, y = outputs_with(task, data, index, state)
    return per_example(task.likelihood.nll(f.double(), y))


def divergence(
    task: Task,
    data: Data,
    index: Tensor | None,
    first: Mapping[str, Tensor] | None,
    second: Mapping[str, Tensor] | None,
) -> Tensor:
    """Compute KL(first ‖ second) of each example's predictions.

    Args:
        task: the network and its law.
        data: examples.
        index: positions among them; None: all.
        first: weights; None: the model's own.
        second: likewise.

    Returns:
        (n,) nats, summed over positions.
    """
    f, y = outputs_with(task, data, index, first)
    g, _ = outputs_with(task, data, index, second)
    return per_example(task.likelihood.kl(f.double(), g.double()) * task.likelihood.weight(f, y).double())


def accuracy_of(task: Task, data: Data, index: Tensor | None, state: Mapping[str, Tensor] | None) -> Tensor | None:
    """Tell which labels are predicted.

    Args:
        task: the network and its law.
        data: examples.
        index: positions among them; None: all.
        state: the weights; None: the model's own.

    Returns:
        1 per label that is predicted and 0 else, (n·positions,); None where the output law has no classes.
    """
    if not task.likelihood.classifies:
        return None
    f, y = outputs_with(task, data, index, state)
    counts = task.likelihood.weight(f, y) > 0
    right = task.likelihood.hits(f, y)
    if right.dim() > counts.dim():
        right = right.amin(-1)
    return right[counts].double().flatten()


def effects_of(
    task: Task,
    space: ParameterSpace,
    state: Mapping[str, Tensor],
    change: Tensor,
    index: Tensor,
    kept: Tensor,
    kind: str = "forget",
) -> tuple[Measurement | Unmeasured, ...]:
    """Measure predicted and measured disturbance, and loss before and after, on every group of examples.

    Args:
        task: the network before the edit.
        space: its parameters.
        state: the edited state dict.
        change: θ' − θ (P,), float64.
        index: positions of the examples it is about; empty for new examples.
        kept: positions of the retained ones.
        kind: first part of the measurements' names.

    Returns:
        the measurements, and what is absent.
    """
    least = -math.inf if task.likelihood.continuous else 0.0  # a density may be above 1
    out: list[Measurement | Unmeasured] = []
    for name, (data, where) in groups_of(task, index, kept).items():
        operator = FisherOperator(task, space, data=data, index=where)
        predicted = 0.5 * float(change @ operator(change))
        out.append(Measurement(f"{kind}.kl_predicted.{name}", predicted, "nats", PREDICTED, operator.n))
        out.append(_mean(f"{kind}.kl.{name}", divergence(task, data, where, None, state), MEASURED, 0.0))
        for when, weights in (("before", None), ("after", state)):
            out.append(_mean(f"{kind}.loss_{when}.{name}", losses(task, data, where, weights), "mean", least))
            right = accuracy_of(task, data, where, weights)
            if right is not None:
                out.append(from_share(f"{kind}.accuracy_{when}.{name}", right, "share of right predictions"))
    if task.test is None:
        out.append(Unmeasured(f"{kind}.kl.unseen", "there are no test data", "give the task test data"))
    return tuple(out)


def _mean(name: str, values: Tensor, how: str, lower: float) -> Measurement:
    return from_samples(name, values, "nats", how, lower=lower)
