"""What a training draws at random, drawn ahead: the initial network and the examples of every step.

The draws are those of ``memspace.task.builtin.train.fit`` at the same seed, so that a training repeated here, many at
once or differentiated, is the training that made the network.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from memspace.task.recipe import Training

__all__ = ["Draws", "draw"]


@dataclass(frozen=True)
class Draws:
    """One training's random choices.

    Args:
        model: the network at its initialisation.
        batches: per step, positions (b,) within the training set, in order.
        rates: per step, the learning rate.
    """

    model: nn.Module
    batches: tuple[Tensor, ...]
    rates: tuple[float, ...]


def draw(training: Training, n: int, seed: int) -> Draws:
    """Draw what a training draws at random; the caller's random state is left as it was.

    Args:
        training: the network and the recipe.
        n: number of training examples.
        seed: of the training.

    Returns:
        The network at its initialisation, and the batches and rates of every step.
    """
    recipe = training.recipe
    size, total = recipe.size(n), recipe.steps(n)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = training.make()
        batches: list[Tensor] = []
        whole = (torch.arange(n),)  # one tensor for all steps
        for _ in range(recipe.epochs):
            order = torch.randperm(n)
            batches += torch.split(order, size) if size < n else whole
    return Draws(model, tuple(batches), tuple(recipe.rate_at(k, total) for k in range(total)))
