"""The network trained again as it was, with a weight for every example: the truth that edits are held against."""

from __future__ import annotations

from torch import Tensor

from memspace.errors import TaskError
from memspace.task.recipe import Training
from memspace.task.task import Task
from memspace.training.many import train_many
from memspace.training.refit import whole

__all__ = ["retrained", "training_of"]


def training_of(task: Task, what: str) -> Training:
    """Return the task's training.

    Args:
        task: the task.
        what: what needs it, for the message.

    Returns:
        the training.

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
    """Train the task's network again, with example i's loss multiplied by w_i.

    A step's loss is Σ w_i ℓ_i / (examples of the step): weight 0 leaves an example out with initialisation and order
    of all others as they were.

    Args:
        task: with its training.
        seed: of initialisation and order.
        weights: (N,) of the training examples; None: ones.

    Returns:
        the state dict after the training.

    Raises:
        TaskError: the task has no training that can be repeated.
        StochasticModelError: the network draws dropout masks while it trains.
    """
    training = training_of(task, "training again")
    x, y = whole(task)
    stacked = None if weights is None else weights[None]
    return train_many(training, x, y, task.likelihood, seeds=[seed], weights=stacked).state_dict(0)
