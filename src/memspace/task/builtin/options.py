"""What a user may choose about a built-in task."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from memspace.limits import COUNT, SEED, SHARE

__all__ = ["BuildOptions", "corrupt"]


@dataclass(frozen=True)
class BuildOptions:
    """Options of a built-in task.

    Args:
        seed: of split, initialisation, order and corruption.
        label_noise: share of training labels replaced by a wrong one.
        data_root: folder (or file) the data are read from.
        cache: folder of trained networks (default: the per-user cache).
        train_size: training examples, where fewer than the task's own are wanted.
        test_size: test examples, likewise.
        epochs: of the training, likewise.
        train_network: False where weights come from elsewhere: without a trained network in the cache, the model is
            left at its initialisation and has no recorded run.

    Raises:
        SettingsError: a number is out of its range.
    """

    seed: int = 0
    label_noise: float = 0.0
    data_root: Path | None = None
    cache: Path | None = None
    train_size: int | None = None
    test_size: int | None = None
    epochs: int | None = None
    train_network: bool = True

    def __post_init__(self) -> None:
        SEED(self.seed, "seed")
        SHARE(self.label_noise, "label_noise")
        for name in ("train_size", "test_size", "epochs"):
            COUNT.optional(getattr(self, name), name)


def corrupt(y: Tensor, share: float, classes: int, seed: int) -> Tensor:
    """Replace exactly round(share·N) labels by a uniformly random other class.

    Args:
        y: right labels, any shape.
        share: of the labels to replace, in [0, 1].
        classes: number of classes.
        seed: of the choice.

    Returns:
        Labels of the shape of ``y``.
    """
    generator = torch.Generator().manual_seed(seed + 7919)
    flat = y.reshape(-1).clone()
    chosen = torch.randperm(len(flat), generator=generator)[: round(share * len(flat))]
    flat[chosen] = (flat[chosen] + torch.randint(1, classes, (len(chosen),), generator=generator)) % classes
    return flat.reshape(y.shape)
