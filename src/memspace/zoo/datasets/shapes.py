"""Rendered shapes with five known factors, at half their resolution and with noise: which shape, and how large?"""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from memspace.task.builtin.shapes import NAMES, SIZES, render
from memspace.task.factors import Factors
from memspace.zoo.registry import ZooData, dataset

__all__ = ["drawn", "levels", "shapes"]

TRAIN, TEST = 2000, 1500
NOISE = 0.1  # standard deviation of the pixels, which lie in [0, 1]


@dataset("shapes")
def shapes(root: Path | None) -> ZooData:
    """Draw images of 16 × 16; no combination of factors is both in the training and in the test set.

    The label is shape and scale, 12 classes; orientation and place are to be ignored. Noise is drawn once,
    the same for every network.

    Args:
        root: not used: the images are rendered.

    Returns:
        The data set, with the factors of the test images; their renderer draws without noise.
    """
    train, test = levels()
    generator = torch.Generator().manual_seed(1)

    def noisy(values: Tensor) -> Tensor:
        clean = drawn(values)
        return clean + NOISE * torch.randn(clean.shape, generator=generator)

    x, x_test = noisy(train), noisy(test)
    factors = Factors(NAMES, test, x_test, SIZES, drawn)
    return ZooData(x, _labels(train), x_test, _labels(test), SIZES[0] * SIZES[1], factors=factors)


def levels() -> tuple[Tensor, Tensor]:
    """Choose combinations of factor levels, each once.

    Returns:
        (N, 5) levels of the training images, and (M, 5) of the test images: shape, scale, orientation, x and y.
    """
    every = torch.cartesian_prod(*(torch.arange(s) for s in SIZES))
    order = torch.randperm(len(every), generator=torch.Generator().manual_seed(0))
    return every[order[:TRAIN]], every[order[TRAIN : TRAIN + TEST]]


def drawn(values: Tensor) -> Tensor:
    """Draw images without noise.

    Args:
        values: (B, 5) levels, continuous in all but the shape.

    Returns:
        (B, 1, 16, 16) in [0, 1].
    """
    return torch.nn.functional.avg_pool2d(render(values), 2)


def _labels(values: Tensor) -> Tensor:
    return values[:, 0] * SIZES[1] + values[:, 1]
