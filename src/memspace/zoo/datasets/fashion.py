"""Fashion-MNIST at half its resolution."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from memspace.task.builtin.fashion import find_idx, read_idx
from memspace.zoo.registry import ZooData, dataset

__all__ = ["fashion"]

TRAIN, TEST = 4000, 4000


@dataset("fashion-mnist")
def fashion(root: Path | None) -> ZooData:
    """Read the first images of both halves, averaged over 2 × 2 pixels to 14 × 14.

    Args:
        root: folder with the four IDX files; None: the environment variable MEMSPACE_DATA.

    Returns:
        The data set.
    """

    def images(stem: str, count: int) -> Tensor:
        full = read_idx(find_idx(root, stem))[:count].float().unsqueeze(1) / 255
        return torch.nn.functional.avg_pool2d(full, 2)

    def labels(stem: str, count: int) -> Tensor:
        return read_idx(find_idx(root, stem))[:count].long()

    return ZooData(
        images("train-images-idx3-ubyte", TRAIN),
        labels("train-labels-idx1-ubyte", TRAIN),
        images("t10k-images-idx3-ubyte", TEST),
        labels("t10k-labels-idx1-ubyte", TEST),
        10,
    )
