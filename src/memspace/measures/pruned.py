"""What pruning cost: accuracy and loss before and after on the same examples, with intervals."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field

from torch import Tensor

from memspace.display import Shown
from memspace.measurement import Measurement
from memspace.measures.compensated import Pruned, PruneSettings
from memspace.measures.correct import correct, per_prediction
from memspace.measures.declaration import measure
from memspace.measures.robustness import split
from memspace.measures.workspace import Workspace
from memspace.passes.outputs import outputs
from memspace.passes.space import ParameterSpace
from memspace.task.task import Task
from memspace.value import Value

__all__ = ["PRUNED_MEASURES", "PrunedNetwork", "PruningCost", "pruning_cost"]

Part = Callable[..., Value | None]


@dataclass(frozen=True, repr=False)
class PrunedNetwork(Shown):
    """A network with weights set to zero, and what that cost.

    Args:
        method: how the weights were chosen.
        share: of the prunable weights kept.
        state: its state dict: all keys of the model's own, new tensors.
        measurements: accuracy and loss before and after, their paired change, the divergence, the weights removed.
    """

    method: str
    share: float
    state: dict[str, Tensor] = field(repr=False)
    measurements: tuple[Measurement, ...]

    def _title(self) -> str:
        return f"{self.share:.1%} of the weights kept by {self.method}"


@dataclass(frozen=True)
class PruningCost:
    """What both networks predict, example by example; a sequence's positions are averaged (``kl``: summed).

    Args:
        pruned: the smaller network.
        data: which data it is judged on, ``"test"`` where there are any, else ``"training"``.
        right: shares of right decisions before and after, (n,) each; None where the law has no classes.
        loss: before and after, (n,) nats each.
        kl: (n,) nats from the network to the pruned one.
        least: what no loss falls below; −∞ for a density's.
        positions: whether examples are sequences.
        weights: number of weights of the network.
        judged: training examples that the objective was measured on.
    """

    pruned: Pruned
    data: str
    right: tuple[Tensor, Tensor] | None
    loss: tuple[Tensor, Tensor]
    kl: Tensor
    least: float
    positions: bool
    weights: int
    judged: int

    @property
    def where(self) -> str:
        """The data, in words."""
        return f"{self.data} data"

    @property
    def per(self) -> str:
        """What the loss is counted per."""
        return "position" if self.positions else ""

    @property
    def measurements(self) -> tuple[Measurement, ...]:
        """All that is measured of it."""
        return Workspace({PruningCost: self}).measure_all(PRUNED_MEASURES)[0]


def pruning_cost(task: Task, space: ParameterSpace, pruned: Pruned, surgery: PruneSettings) -> PruningCost:
    """Read both networks on test data where there are any, else on training data.

    Args:
        task: the network, its law and data.
        space: layout of ``pruned``.
        pruned: the smaller network.
        surgery: settings it was pruned by.

    Returns:
        what both predict.
    """
    data, word = split(task.test, task.train)
    law = task.likelihood
    f, y = outputs(task, data)
    g, _ = outputs(task, data, state=space.unpack(pruned.flat))
    weight = law.weight(f, y).double()

    def each(values: Tensor) -> Tensor:
        flat, w = (values.double() * weight).reshape(len(f), -1), weight.reshape(len(f), -1)
        return per_prediction(flat.sum(1), w.sum(1))

    return PruningCost(
        pruned,
        word,
        (each(correct(law, f, y)), each(correct(law, g, y))) if law.classifies else None,
        (each(law.nll(f.double(), y)), each(law.nll(g.double(), y))),
        (law.kl(f.double(), g.double()) * weight).reshape(len(f), -1).sum(1),
        -math.inf if law.continuous else 0.0,
        f.dim() > 2,
        space.size,
        min(len(task.train), surgery.examples),
    )


def _accuracy(when: str, place: int) -> Part:
    """Declare the accuracy before or after."""

    @measure(
        f"pruning.accuracy_{when}",
        chapter="pruning",
        unit="1",
        estimator=f"accuracy {when}",
        better="larger",
        shown="share",
    )
    def accuracy(cost: PruningCost) -> Value | None:
        return None if cost.right is None else Value.share(cost.right[place], how=cost.where)

    accuracy.__doc__ = f"Share of right decisions {when} pruning."
    return accuracy


@measure("pruning.accuracy_change", chapter="pruning", unit="1", estimator="change of accuracy, paired")
def accuracy_change(cost: PruningCost) -> Value | None:
    """Accuracy of the pruned network less that of the network."""
    return None if cost.right is None else Value.change(*cost.right, how=cost.where)


def _loss(when: str, place: int) -> Part:
    """Declare the loss before or after."""

    @measure(f"pruning.loss_{when}", chapter="pruning", unit="nats", estimator=f"loss {when}", better="smaller")
    def loss(cost: PruningCost) -> Value:
        return Value.mean(cost.loss[place], lower=cost.least, how=cost.where, per=cost.per)

    loss.__doc__ = f"Mean loss {when} pruning."
    return loss


@measure("pruning.loss_change", chapter="pruning", unit="nats", estimator="change of loss, paired", better="smaller")
def loss_change(cost: PruningCost) -> Value:
    """Loss of the pruned network less that of the network."""
    before, after = cost.loss
    return Value.mean(after - before, how=cost.where, per=cost.per)


@measure(
    "pruning.kl", chapter="pruning", unit="nats", estimator="KL from the network to the pruned one", better="smaller"
)
def divergence(cost: PruningCost) -> Value:
    """Divergence of the pruned network's predictions."""
    return Value.mean(cost.kl, lower=0.0, how=cost.where)


@measure("pruning.removed", chapter="pruning", unit="weights", estimator="weights set to zero")
def removed(cost: PruningCost) -> Value:
    """Number of weights set to zero."""
    return Value(float((~cost.pruned.kept).sum()), cost.weights)


@measure("pruning.objective", chapter="pruning", unit="nats", estimator="objective on training examples")
def objective(cost: PruningCost) -> Value | None:
    """Objective that the other weights were changed to make least."""
    if cost.pruned.objective is None:
        return None
    note = "the objective that pruning minimised, so slightly too small"
    return Value(cost.pruned.objective, cost.judged, note=note)


PRUNED_MEASURES: tuple[Part, ...] = (
    _accuracy("before", 0),
    _accuracy("after", 1),
    accuracy_change,
    _loss("before", 0),
    _loss("after", 1),
    loss_change,
    divergence,
    removed,
    objective,
)
