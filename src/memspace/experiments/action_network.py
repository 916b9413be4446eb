"""The one network of the training study and its data: a residual network on vectors, split again for every seed."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from memspace.errors import DataError
from memspace.measures.corruptions import CORRUPTIONS, picture_shape
from memspace.task.builtin.options import corrupt
from memspace.task.data import first_tensor
from memspace.task.task import Task

__all__ = ["BLOCKS", "DataSplit", "Examples", "Residual", "ResidualNetwork", "examples_of"]

BLOCKS = "blocks.?"  # shell pattern of the residual blocks' names
SEVERITY = 3  # of the eight of every corruption: where small networks lose some decisions and keep others


class Residual(nn.Module):
    """h + V ReLU(W h + b) + c, with dropout between the two layers.

    Args:
        width: of h.
        dropout: share dropped.
    """

    def __init__(self, width: int, dropout: float = 0.0) -> None:
        super().__init__()
        self.inner, self.outer = nn.Linear(width, width), nn.Linear(width, width)
        self.dropout = nn.Dropout(dropout)

    def forward(self, h: Tensor) -> Tensor:
        """Apply the block.

        Args:
            h: (B, width).

        Returns:
            (B, width).
        """
        out: Tensor = h + self.outer(self.dropout(torch.relu(self.inner(h))))
        return out


class ResidualNetwork(nn.Module):
    """Linear layer and ReLU, residual blocks of one width, linear read-out: every method of the study can train it.

    Args:
        inputs: D.
        width: of the blocks.
        blocks: number of them.
        classes: K.
        dropout: share dropped in the blocks.
    """

    def __init__(self, inputs: int, width: int, blocks: int, classes: int, dropout: float = 0.0) -> None:
        super().__init__()
        self.first = nn.Linear(inputs, width)
        self.blocks = nn.ModuleList([Residual(width, dropout) for _ in range(blocks)])
        self.last = nn.Linear(width, classes)

    def forward(self, x: Tensor) -> Tensor:
        """Compute logits.

        Args:
            x: (B, D).

        Returns:
            (B, K).
        """
        h = torch.relu(self.first(x))
        for block in self.blocks:
            h = block(h)
        out: Tensor = self.last(h)
        return out


@dataclass(frozen=True)
class DataSplit:
    """One seed's training and validation examples.

    Args:
        x: training inputs (n, D).
        y: training labels (n,).
        truth: the training labels before some were made wrong, (n,).
        x_valid: validation inputs.
        y_valid: validation labels.
    """

    x: Tensor
    y: Tensor
    truth: Tensor
    x_valid: Tensor
    y_valid: Tensor

    @property
    def wrong(self) -> Tensor:
        """Mask of the training labels that are wrong, (n,) bool."""
        return self.y != self.truth


@dataclass(frozen=True)
class Examples:
    """A pool to draw training and validation examples from, and test examples apart from all of them.

    Args:
        name: of the data.
        x: inputs of the pool, (N, D).
        y: labels of the pool, (N,).
        x_test: (M, D).
        y_test: (M,).
        worse: corruption → (M, D) corrupted test inputs.
        train: number of training examples a seed draws.
        valid: number of validation examples a seed draws.
        noise: share of training labels made wrong.
        classes: K.
    """

    name: str
    x: Tensor
    y: Tensor
    x_test: Tensor
    y_test: Tensor
    worse: dict[str, Tensor]
    train: int
    valid: int
    noise: float
    classes: int

    def split(self, seed: int) -> DataSplit:
        """Draw a seed's examples from the pool; validation labels stay right.

        Args:
            seed: of the draw.

        Returns:
            Training and validation examples.
        """
        order = torch.randperm(len(self.x), generator=torch.Generator().manual_seed(seed + 31))
        a, b = order[: self.train], order[self.train : self.train + self.valid]
        truth = self.y[a]
        return DataSplit(self.x[a], corrupt(truth, self.noise, self.classes, seed), truth, self.x[b], self.y[b])


def examples_of(
    task: Task, *, noise: float = 0.0, train: int | None = None, valid: int | None = None, test: int | None = None
) -> Examples:
    """Take the task's data for the study: its training data are the pool, its test data the test.

    Args:
        task: of classes, with test data.
        noise: share of training labels made wrong.
        train: training examples a seed draws (default: four fifths of what validation leaves).
        valid: validation examples a seed draws (default: a fifth of the pool).
        test: at most so many test examples.

    Returns:
        The pool and the test examples, with corrupted ones.

    Raises:
        DataError: not enough data, no test data, or inputs that are not tensors of numbers with one class each.
    """
    if task.test is None or not task.likelihood.has_classes:
        raise DataError(
            "the training study needs classes and test data",
            where=task.name,
            remedy="give a task with the categorical law and test data",
        )
    x, y = _whole(task, len(task.train), training=True)
    x_test, y_test = _whole(task, min(test or len(task.test), len(task.test)), training=False)
    train = (len(x) if valid is None else len(x) + valid) * 4 // 5 if train is None else train
    valid = max(1, len(x) // 5) if valid is None else valid
    if train < 2 or valid < 1 or train + valid > len(x):
        raise DataError(
            f"{train} training and {valid} validation examples cannot be drawn from {len(x)}",
            where=task.name,
            remedy="ask for fewer",
        )
    shape = picture_shape(task, x_test)
    worse = _corrupted(x_test, shape)
    flat = {k: v.flatten(1) for k, v in worse.items()}
    classes = int(torch.cat([y, y_test]).max()) + 1
    return Examples(task.name, x.flatten(1), y, x_test.flatten(1), y_test, flat, train, valid, noise, classes)


def _whole(task: Task, count: int, *, training: bool) -> tuple[Tensor, Tensor]:
    data = task.train if training else task.test
    assert data is not None
    batch = data.batch(torch.arange(count))
    x = first_tensor(batch.x)
    if not isinstance(batch.x, Tensor) or not x.is_floating_point() or batch.y.dim() != 1:
        raise DataError(
            "the training study needs inputs of one tensor of numbers, and one class for each",
            where=data.name,
            remedy="choose a task of pictures or vectors",
        )
    return x.float().cpu(), batch.y.cpu()


def _corrupted(x: Tensor, shape: tuple[int, int, int] | None) -> dict[str, Tensor]:
    """Test inputs under every corruption that fits them, the same for all networks."""
    scale, generator = float(x.std()), torch.Generator().manual_seed(0)
    out = {}
    for c in CORRUPTIONS:
        if c.pictures if shape is None else c.name == "mask":  # of pictures, noise says what masking would
            continue
        inputs = x if shape is None else x.reshape(len(x), *shape)
        assert math.prod(inputs.shape) == x.numel()
        out[c.name] = c.apply(inputs, c.severities[SEVERITY], scale, generator).reshape(x.shape)
    return out
