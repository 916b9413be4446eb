"""The network trained again as it was, with a weight for every example: the truth that edits are held against."""

from __future__ import annotations

import torch
from torch import Tensor

from memspace.errors import TaskError
from memspace.task.data import call_model, move
from memspace.task.recipe import Training
from memspace.task.task import Task
from memspace.training.draws import draw

__all__ = ["retrained", "training_of"]


def training_of(task: Task, what: str) -> Training:
    """The task's training.

    Raises:
        TaskError: it has none that can be repeated.
    """
    if task.training is None:
        raise TaskError(
            f"{what} needs a training that can be repeated",
            where=task.name,
            remedy="give the task a training: memspace.task.recipe.Training(make, recipe)",
        )
    return task.training


def retrained(task: Task, seed: int, weights: Tensor | None = None) -> dict[str, Tensor]:
    """The state dict after the task's training from that seed, example i's loss multiplied by w_i.

    A step's loss is Σ w_i ℓ_i / (examples of the step): weight 0 leaves an example out with initialisation and order
    of all others as they were.

    Raises:
        TaskError: the task has no training that can be repeated.
    """
    training = training_of(task, "training again")
    recipe, n = training.recipe, len(task.train)
    drawn = draw(training, n, seed)
    model = drawn.model.to(task.device, task.dtype).train()
    w = torch.ones(n, dtype=task.dtype) if weights is None else weights.to(task.dtype)
    optimiser = recipe.descent(model.parameters())
    for index, rate in zip(drawn.batches, drawn.rates, strict=True):
        part = task.train.batch(index)
        for group in optimiser.param_groups:
            group["lr"] = rate
        f = call_model(model, move(part.x, task.device, task.dtype))
        loss = task.likelihood.nll(f, move(part.y, task.device)).reshape(len(part), -1).mean(1)
        optimiser.zero_grad(set_to_none=True)
        torch.autograd.backward((loss * w[index].to(loss)).mean())
        optimiser.step()
    return {k: v.detach().clone() for k, v in model.state_dict().items()}
