"""Rendered shapes with five known factors (those of dSprites), drawn with soft edges so that factors have slopes."""

from __future__ import annotations

import math

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

__all__ = ["NAMES", "SIZES", "render", "shapes"]

NAMES = ("shape", "scale", "orientation", "x", "y")
SIZES = (3, 4, 8, 8, 8)
KINDS = ("square", "ellipse", "heart")
DESCRIBED = 2000  # images whose factors come with the task
_SIDE = 32
RECIPE = Recipe(epochs=12, batch=128, rate=2e-3, decay=1e-4)


def render(levels: Tensor) -> Tensor:
    """Draw images from factor levels, continuous in all but the shape.

    Orientation covers a quarter turn, so that no two levels of any shape look alike.

    Args:
        levels: (B, 5) shape, scale, orientation, x and y.

    Returns:
        (B, 1, 32, 32) in [0, 1].
    """
    levels = levels.to(torch.float64)
    size = 4.0 + 1.2 * levels[:, 1]
    angle = levels[:, 2] * (math.pi / 2 / SIZES[2])
    cx, cy = (8.0 + levels[:, k] * (16.0 / (SIZES[k] - 1)) for k in (3, 4))
    axis = torch.arange(_SIDE, dtype=torch.float64) + 0.5
    py, px = torch.meshgrid(axis, axis, indexing="ij")
    dx, dy = px[None] - cx[:, None, None], py[None] - cy[:, None, None]
    c, s = angle.cos()[:, None, None], angle.sin()[:, None, None]
    u, v = (c * dx + s * dy) / size[:, None, None], (-s * dx + c * dy) / size[:, None, None]
    square = 0.8 - torch.maximum(u.abs(), v.abs())
    ellipse = 1.0 - torch.sqrt(u**2 + (1.8 * v) ** 2 + 1e-12)
    w = -v + 0.15
    heart = 0.35 * (1.0 - ((u**2 + w**2 - 0.7) * torch.sqrt(u**2 + w**2 + 0.05) * 1.6 - u**2 * w * 1.4 + 0.55))
    inside = torch.stack([square, ellipse, heart])
    kind = levels[:, 0].round().long().clamp(0, 2)
    chosen = inside[kind, torch.arange(len(levels))]
    return torch.sigmoid(chosen * size[:, None, None] * 2.5).unsqueeze(1).float()


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
