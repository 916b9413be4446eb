"""A task's own way to train again on some of its examples, given or made from its repeatable training."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from memspace.errors import TaskError
from memspace.progress import Progress, Silent
from memspace.task.data import Inputs, move
from memspace.task.task import Task
from memspace.training.many import train_many

__all__ = ["refit_many", "refit_of", "rest_of", "whole"]


def refit_of(task: Task) -> Callable[[Tensor, int], nn.Module] | None:
    """Give the task's own way to train again on some of its examples.

    Args:
        task: with a ``refit`` or a ``training``.

    Returns:
        ``refit(indices, seed)``: as it was passed, else made from the training; None where the task has neither.
    """
    if task.refit is not None or task.training is None:
        return task.refit

    def refit(index: Tensor, seed: int) -> nn.Module:
        return refit_many(task, index[None], (seed,))[0]

    return refit


def refit_many(task: Task, index: Tensor, seeds: Sequence[int], progress: Progress | None = None) -> list[nn.Module]:
    """Train networks on subsets: together where the task has a training, else in turn.

    Args:
        task: with a ``refit`` or a ``training``.
        index: each network's examples, (M, m).
        seeds: one a network.
        progress: told of every network.

    Returns:
        The networks, in order.

    Raises:
        TaskError: the task can train neither way.
    """
    progress = progress or Silent()
    # A single network gains nothing from company, and its own training may use all threads.
    if task.training is not None and (len(seeds) > 1 or task.refit is None):
        x, y = whole(task)
        networks = train_many(
            task.training, x, y, task.likelihood.trained_with, seeds=seeds, index=index, progress=progress
        )
        return [networks.model(m) for m in range(len(networks))]
    refit = task.refit
    if refit is None:
        raise TaskError(
            "the task cannot train a network again", where=task.name, remedy="give Task(training=...) or refit"
        )
    pairs = zip(index, seeds, strict=True)
    return [refit(i, s) for i, s in progress.track(pairs, "training networks", len(seeds))]


def rest_of(n: int, index: Tensor) -> Tensor:
    """Return the positions that are not in ``index``.

    Args:
        n: how many positions there are.
        index: (m,) some of 0 to n − 1.

    Returns:
        (n − m,) the others, ascending.
    """
    mask = torch.ones(n, dtype=torch.bool)
    mask[index] = False
    rest: Tensor = mask.nonzero().flatten()
    return rest


def whole(task: Task) -> tuple[Inputs, Tensor]:
    """Read all training examples at once, on the task's device: repeated trainings pick from them.

    Args:
        task: with the data.

    Returns:
        Inputs and labels.
    """
    batch = task.train.batch(range(len(task.train)))
    return move(batch.x, task.device), move(batch.y, task.device)
