"""Handwritten digits that ship with scikit-learn: 1,200 to train on, 597 to test."""

from __future__ import annotations

from pathlib import Path

import torch
from sklearn.datasets import load_digits

from memspace.zoo.registry import ZooData, dataset

__all__ = ["digits"]

TRAIN = 1200


@dataset("digits")
def digits(root: Path | None) -> ZooData:
    """Read the digits, as images of one channel; shuffled once, the same for every network.

    Args:
        root: not used: the data are part of an installed package.

    Returns:
        The data set.
    """
    raw = load_digits()
    x = torch.tensor(raw.images / 16.0, dtype=torch.float32).unsqueeze(1)
    y = torch.tensor(raw.target, dtype=torch.long)
    order = torch.randperm(len(y), generator=torch.Generator().manual_seed(0))
    train, test = order[:TRAIN], order[TRAIN:]
    return ZooData(x[train], y[train], x[test], y[test], 10)
