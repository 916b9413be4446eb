"""The memory benchmark's two workloads: real images, a tenth of the training labels wrong, repeatable trainings.

Activations are smooth (GELU) and pooling is by means, so that a gradient through the whole training means something.
The convolutional recipe was chosen by three things that no method under test enters (docs/measured/retraining.md):
loss on images that nothing else uses, seconds per training, and how far the outcome with a tenth of the examples at
weight ½ tells that at weight 0.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn

from benchmarks.engine_workloads import fashion_images
from memspace.task.builtin.options import corrupt
from memspace.task.builtin.train import fit
from memspace.task.data import Data
from memspace.task.recipe import Recipe, Training
from memspace.task.task import Task

__all__ = ["NOISE", "WORKLOADS", "digits", "fashion"]

NOISE = 0.1  # share of wrong training labels
MEAN, SPREAD = 0.286, 0.353  # of all pixels of Fashion-MNIST's training images; uncentred, training waits on a plateau


def _task(
    name: str, training: Training, x: Tensor, truth: Tensor, tx: Tensor, ty: Tensor, shape: tuple[int, ...], seed: int
) -> Task:
    labels = corrupt(truth, NOISE, 10, seed)

    def refit(index: Tensor, other: int) -> nn.Module:
        return fit(training.make, x[index], labels[index], training.recipe, seed=other, record=False).model

    trained = fit(training.make, x, labels, training.recipe, seed=seed)
    return Task(
        model=trained.model,
        train=Data((x, labels)),
        test=Data((tx, ty)),
        name=name,
        class_names=tuple(str(k) for k in range(10)),
        input_shape=shape,
        decay=training.recipe.decay,
        run=trained.run,
        refit=refit,
        training=training,
        true_labels=truth,
    )


def digits(root: Path, seed: int, small: bool = False) -> Task:
    """1,000 digits, 797 for testing; 64-128-128-10, SGD with momentum, 160 steps."""
    raw = load_digits()
    x = torch.tensor(raw.data / 16.0, dtype=torch.float32)
    y = torch.tensor(raw.target, dtype=torch.long)
    order = torch.randperm(len(y), generator=torch.Generator().manual_seed(seed))
    n = 200 if small else 1000
    recipe = Recipe(20, 128, 0.2, 1e-3, threads=1, optimiser="sgd")
    training = Training(_mlp, recipe)
    train, test = order[:n], order[n : n + (100 if small else 797)]
    return _task("digits", training, x[train], y[train], x[test], y[test], (8, 8), seed)


def _mlp() -> nn.Module:
    return nn.Sequential(nn.Linear(64, 128), nn.GELU(), nn.Linear(128, 128), nn.GELU(), nn.Linear(128, 10))


def fashion(root: Path, seed: int, small: bool = False) -> Task:
    """5,000 Fashion-MNIST images, 2,000 for testing; a convolutional network of 27,000 parameters, 800 steps."""
    n, m = (300, 100) if small else (5000, 2000)
    every, labels = fashion_images(root, "train", 60_000)
    index = torch.randperm(len(labels), generator=torch.Generator().manual_seed(seed))[:n]
    tx, ty = fashion_images(root, "t10k", m)
    every, tx = ((k - MEAN) / SPREAD for k in (every, tx))
    training = Training(_cnn, Recipe(20, 128, 0.01, 1e-3, optimiser="sgd"))
    return _task("fashion-mnist", training, every[index], labels[index], tx, ty, (28, 28), seed)


def _cnn() -> nn.Module:
    return nn.Sequential(
        nn.AvgPool2d(2),  # first, so that a thousand trainings are an hour's work
        nn.Conv2d(1, 8, 3, padding=1),
        nn.GELU(),
        nn.Conv2d(8, 16, 3, padding=1),
        nn.GELU(),
        nn.AvgPool2d(2),
        nn.Flatten(),
        nn.Linear(784, 32),
        nn.GELU(),
        nn.Linear(32, 10),
    )


WORKLOADS: dict[str, Callable[[Path, int, bool], Task]] = {"digits": digits, "fashion-mnist": fashion}
