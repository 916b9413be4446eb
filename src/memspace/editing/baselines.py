"""What an edit must beat: training on without the set, climbing the set's loss, and both; each at a stated cost."""

from __future__ import annotations

import copy
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from memspace.task.checks import evaluating
from memspace.task.data import call_model, move
from memspace.task.task import Task

__all__ = ["SgdSteps", "ascend", "fine_tune"]


@dataclass(frozen=True)
class SgdSteps:
    """How a baseline takes its steps: plain SGD with momentum at a constant rate, batches reshuffled every epoch.

    Args:
        rate: learning rate.
        momentum: of the steps.
        batch: examples of a step.
        seed: of the order of examples.
    """

    rate: float
    momentum: float = 0.9
    batch: int = 128
    seed: int = 0


def fine_tune(
    task: Task, kept: Tensor, gradients: int, descent: SgdSteps, *, start: dict[str, Tensor] | None = None
) -> dict[str, Tensor]:
    """Train on from the model's weights (or others) on the retained examples.

    Args:
        task: the network, its law, data and decay.
        kept: positions of the retained training examples.
        gradients: gradients of one example to spend.
        descent: how steps are taken.
        start: state dict to start from; None: the model's.

    Returns:
        the state dict after it, new tensors.
    """
    model = _copy(task, start)
    decay = task.decay or 0.0
    optimiser = torch.optim.SGD(model.parameters(), descent.rate, descent.momentum, weight_decay=decay)
    generator = torch.Generator().manual_seed(descent.seed)
    spent = 0
    with evaluating(model):
        while spent < gradients:
            order = kept[torch.randperm(len(kept), generator=generator)]
            for index in torch.split(order, descent.batch):
                if spent >= gradients:
                    break
                _descend(task, model, optimiser, index, 1.0)
                spent += len(index)
    return _state(model)


def ascend(task: Task, index: Tensor, steps: int, descent: SgdSteps) -> dict[str, Tensor]:
    """Train by plain gradient steps that raise the mean loss of some examples.

    Args:
        task: the network, its law and data.
        index: positions of the training examples.
        steps: number of steps, all examples in each.
        descent: its rate is used.

    Returns:
        the state dict after it, new tensors.
    """
    model = _copy(task, None)
    optimiser = torch.optim.SGD(model.parameters(), descent.rate)
    with evaluating(model):
        for _ in range(steps):
            _descend(task, model, optimiser, index, -1.0)
    return _state(model)


def _descend(task: Task, model: nn.Module, optimiser: torch.optim.Optimizer, index: Tensor, sign: float) -> None:
    part = task.train.batch(index)
    f = call_model(model, move(part.x, task.device, task.dtype))
    loss = task.likelihood.nll(f, move(part.y, task.device)).reshape(len(part), -1).mean(1)
    optimiser.zero_grad(set_to_none=True)
    torch.autograd.backward(sign * loss.mean())
    optimiser.step()


def _copy(task: Task, start: dict[str, Tensor] | None) -> nn.Module:
    model = copy.deepcopy(task.model)
    if start is not None:
        model.load_state_dict(start)
    return model


def _state(model: nn.Module) -> dict[str, Tensor]:
    return {k: v.detach().clone() for k, v in model.state_dict().items() if isinstance(v, Tensor)}
