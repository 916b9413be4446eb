"""A small network that names rendered shapes of five known factors, in the world of shapes."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from memspace.errors import SettingsError
from memspace.progress import Progress
from memspace.task.builtin.options import BuildOptions
from memspace.task.builtin.registry import builtin
from memspace.task.builtin.trained import Ingredients, trained_task
from memspace.task.factors import Factors
from memspace.task.recipe import Recipe
from memspace.task.task import Task
from memspace.task.worlds.shapes import NAMES, SIZES, render

__all__ = ["NAMES", "SIZES", "render", "shapes"]

KINDS = ("square", "ellipse", "heart")
DESCRIBED = 2000  # images whose factors come with the task
RECIPE = Recipe(epochs=12, batch=128, rate=2e-3, decay=1e-4)


def _network() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(1, 12, 4, stride=2, padding=1),
        nn.ReLU(),
        nn.Conv2d(12, 24, 4, stride=2, padding=1),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(24 * 64, 64),
        nn.ReLU(),
        nn.Linear(64, 10),
        nn.ReLU(),
        nn.Linear(10, SIZES[0] * SIZES[1]),
    )


def _combinations(count: int, seed: int) -> Tensor:
    """Draw combinations of factor levels without replacement: a copy in the test set would tell nothing new."""
    every = torch.cartesian_prod(*(torch.arange(s) for s in SIZES))
    if count > len(every):
        most = len(every) - DESCRIBED
        raise SettingsError(
            f"{count - DESCRIBED:,} training and test images are asked for, and factors make {most:,} different ones",
            where="shapes",
            remedy=f"let train and test size add up to at most {most:,}",
        )
    return every[torch.randperm(len(every), generator=torch.Generator().manual_seed(seed))[:count]]


@builtin("shapes")
def shapes(options: BuildOptions, progress: Progress) -> Task:
    """Train a network to name shape and scale (12 classes) of 3,000 images of random factors, no two alike.

    Args:
        options: seed, sizes, share of wrong labels.
        progress: what shows the training.

    Returns:
        The task with its trained network and 2,000 further images with their factors.

    Raises:
        SettingsError: more images are asked for than there are combinations of factors.
    """
    train, test = options.train_size or 3000, options.test_size or 1000
    values = _combinations(train + test + DESCRIBED, options.seed)
    x = render(values)
    y = values[:, 0] * SIZES[1] + values[:, 1]
    ingredients = Ingredients(
        _network,
        RECIPE,
        x[:train],
        y[:train],
        (x[train : train + test], y[train : train + test]),
        classes=SIZES[0] * SIZES[1],
        data="rendered shapes, five factors (shape, scale, orientation, x, y)",
        architecture="two convolutions, 64-10-12 head, ReLU",
    )
    return trained_task(
        "shapes",
        ingredients,
        options,
        progress,
        class_names=tuple(f"{k} {s + 1}" for k in KINDS for s in range(SIZES[1])),
        input_shape=(32, 32),
        factors=Factors(NAMES, values[train + test :], x[train + test :], SIZES, render),
    )
