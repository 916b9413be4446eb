"""Handwritten digits that ship with scikit-learn (UCI, 1,797 images of 8×8): real data, no download."""

from __future__ import annotations

import torch
from sklearn.datasets import load_digits
from torch import nn

from memspace.progress import Progress
from memspace.task.builtin.options import BuildOptions
from memspace.task.builtin.registry import builtin
from memspace.task.builtin.trained import Ingredients, trained_task
from memspace.task.recipe import Recipe
from memspace.task.task import Task

__all__ = ["digits"]

# γ = 3e-3 has the least test loss of 1e-3, 3e-3 and 1e-2 with 10% wrong labels (0.26 against 0.30 and 0.31 nats).
RECIPE = Recipe(epochs=500, batch=None, rate=3e-3, decay=3e-3, threads=1)


def _network() -> nn.Module:
    return nn.Sequential(nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, 128), nn.ReLU(), nn.Linear(128, 10))


@builtin("digits")
def digits(options: BuildOptions, progress: Progress) -> Task:
    """Train a 64-128-128-10 network on 1,000 handwritten digits and test it on 797, whose labels are never corrupted.

    Args:
        options: seed, sizes, share of wrong labels.
        progress: what shows the training.

    Returns:
        The task with its trained network.
    """
    raw = load_digits()
    x = torch.tensor(raw.data / 16.0, dtype=torch.float32)
    y = torch.tensor(raw.target, dtype=torch.long)
    generator = torch.Generator().manual_seed(options.seed)
    order = torch.randperm(len(y), generator=generator)
    size = options.train_size or 1000
    train, test = order[:size], order[size:]
    if options.test_size is not None:
        test = test[: options.test_size]
    ingredients = Ingredients(
        _network,
        RECIPE,
        x[train],
        y[train],
        (x[test], y[test]),
        classes=10,
        data="UCI handwritten digits, 8×8 grey levels (scikit-learn)",
        architecture="64-128-128-10, ReLU",
    )
    names = tuple(str(k) for k in range(10))
    return trained_task("digits", ingredients, options, progress, class_names=names, input_shape=(8, 8))
