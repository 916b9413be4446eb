"""The cost of a given change of the weights, in total and layer by layer: predicted by F and measured.

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
    """Divergence that the change of one layer alone makes, per example.

    Args:
        label: of the layer.
        predicted: (n,) ½ δᵀFδ, nats.
        measured: (n,) KL, nats.
    """

    label: str
    predicted: Tensor
    measured: Tensor


def predicted_kl(operator: FisherOperator, task: Task, change: Tensor) -> Tensor:
    """Compute ½ δᵀF_iδ of each example i, exact for that example, by one forward-mode pass.

    Args:
        operator: F of the examples.
        task: the network.
        change: (P,) δ.

    Returns:
        (n,) nats, summed over an example's positions.
    """
    d = operator.directional(change)
    law, f, moved = task.likelihood, d["f"].double(), d["moved"].double()
    terms = 0.5 * (law.fisher_matvec(f, moved) * moved).sum(-1) * law.weight(f, d["y"])
    return terms.reshape(len(f), -1).sum(1)


def measured_kl(task: Task, space: ParameterSpace, flat: Tensor, before: Tensor, y: Tensor, index: Tensor) -> Tensor:
    """Compute the KL from each training example's predictions to those at other weights.

    Args:
        task: the network and its training data.
        space: the parameters.
        flat: (P,) weights.
        before: (n, ..., C) outputs at the model's weights.
        y: labels.
        index: (n,) training examples.

    Returns:
        (n,) nats, summed over an example's positions.
    """
    after, _ = outputs(task, task.train, state=space.unpack(flat), index=index)
    law = task.likelihood
    terms = law.kl(before.double(), after.double()) * law.weight(before, y).double()
    return terms.reshape(len(before), -1).sum(1)


def layer_costs(
    task: Task, space: ParameterSpace, moved: Tensor, index: Tensor, progress: Progress
) -> tuple[LayerCost, ...]:
    """Predict and measure what each layer's part of a change costs alone.

    A block costs one forward-mode and one forward pass.

    Args:
        task: the network and its training data.
        space: the parameters.
        moved: (P,) weights after the change.
        index: (n,) training examples.
        progress: where the layers report.

    Returns:
        one entry per block that changes, in the space's order.
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
