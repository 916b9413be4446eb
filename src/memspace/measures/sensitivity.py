"""What a stated change of the weights costs, as a whole and layer by layer: predicted by F and measured.

To second order KL(p_θ ‖ p_θ+δ) = ½ δᵀFδ for the change δ that really happens. Neither tr F of a layer, which is the
cost of equal noise on every weight, nor the diagonal ½ Σ F_ii δ_i² says what rounding or pruning costs: the first does
not know δ, the second leaves out what weights do together.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from memspace.passes.linearise import FisherOperator
from memspace.passes.outputs import outputs
from memspace.passes.space import ParameterSpace
from memspace.progress import Progress
from memspace.task.task import Task

__all__ = ["LayerCost", "layer_costs", "measured_kl", "predicted_kl"]


@dataclass(frozen=True)
class LayerCost:
    """KL that the change of one layer alone makes, per example (n,), nats: ``predicted`` ½ δᵀFδ, and ``measured``."""

    label: str
    predicted: Tensor
    measured: Tensor


def predicted_kl(operator: FisherOperator, task: Task, change: Tensor) -> Tensor:
    """½ δᵀF_iδ of each example i, exact for that example, by one forward-mode pass.

    Args:
        operator: of the examples.
        change: δ (P,).

    Returns:
        (n,) nats, summed over an example's positions.
    """
    d = operator.directional(change)
    law, f, moved = task.likelihood, d["f"].double(), d["moved"].double()
    each = 0.5 * (law.fisher_matvec(f, moved) * moved).sum(-1) * law.weight(f, d["y"])
    return each.reshape(len(f), -1).sum(1)


def measured_kl(task: Task, space: ParameterSpace, flat: Tensor, before: Tensor, y: Tensor, index: Tensor) -> Tensor:
    """KL of each training example's predictions, from outputs ``before`` to those at weights ``flat``, (n,) nats."""
    after, _ = outputs(task, task.train, state=space.unpack(flat), index=index)
    law = task.likelihood
    each = law.kl(before.double(), after.double()) * law.weight(before, y).double()
    return each.reshape(len(before), -1).sum(1)


def layer_costs(
    task: Task, space: ParameterSpace, moved: Tensor, index: Tensor, progress: Progress
) -> tuple[LayerCost, ...]:
    """What each layer's part of the change from the model's weights to ``moved`` (P,) costs alone.

    Args:
        index: training examples.

    Returns:
        One entry per block that changes, in the space's order. A block costs one forward-mode and one forward pass.
    """
    theta = space.flat(task.model)
    operator = FisherOperator(task, space, index=index)
    before, y = outputs(task, task.train, index=index)
    start, costs = 0, []
    for block, label in progress.track(list(zip(space.blocks, space.labels, strict=True)), "layers", len(space.blocks)):
        part = slice(start, start + block.size)
        start += block.size
        if torch.equal(moved[part], theta[part]):
            continue
        alone = theta.clone()
        alone[part] = moved[part]
        predicted = predicted_kl(operator, task, alone - theta)
        costs.append(LayerCost(label, predicted, measured_kl(task, space, alone, before, y, index)))
    return tuple(costs)
