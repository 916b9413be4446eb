"""Handwritten digits that ship with scikit-learn (UCI, 1,797 images of 8×8): real data, no download."""

from __future__ import annotations

from dataclasses import replace

import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn

from memspace.progress import Progress
from memspace.task.builtin.options import BuildOptions, corrupt
from memspace.task.builtin.train import cached, fit
from memspace.task.data import Data
from memspace.task.recipe import Recipe, Training
from memspace.task.task import Task

__all__ = ["digits"]

# γ = 3e-3 has the least test loss of 1e-3, 3e-3 and 1e-2 with 10% wrong labels (0.26 against 0.30 and 0.31 nats).
RECIPE = Recipe(epochs=500, batch=None, rate=3e-3, decay=3e-3, threads=1)


def _network() -> nn.Module:
    return nn.Sequential(nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, 128), nn.ReLU(), nn.Linear(128, 10))


def digits(options: BuildOptions, progress: Progress) -> Task:
    """1,000 training and 797 test images, a 64-128-128-10 network; test labels are never corrupted."""
    raw = load_digits()
    x = torch.tensor(raw.data / 16.0, dtype=torch.float32)
    y = torch.tensor(raw.target, dtype=torch.long)
    generator = torch.Generator().manual_seed(options.seed)
    order = torch.randperm(len(y), generator=generator)
    size = options.train_size or 1000
    train, test = order[:size], order[size:]
    if options.test_size is not None:
        test = test[: options.test_size]
    truth = y[train]
    labels = corrupt(truth, options.label_noise, 10, options.seed)
    recipe = replace(RECIPE, epochs=options.epochs or RECIPE.epochs)
    inputs = x[train]
    trained = cached(
        _network,
        inputs,
        labels,
        recipe,
        name="digits",
        options=options,
        progress=progress,
    )

    def refit(index: Tensor, seed: int) -> nn.Module:
        return fit(_network, inputs[index], labels[index], recipe, seed=seed, record=False).model

    return Task(
        model=trained.model,
        train=Data((inputs, labels)),
        test=Data((x[test], y[test])),
        name="digits",
        class_names=tuple(str(k) for k in range(10)),
        input_shape=(8, 8),
        decay=recipe.decay,
        run=trained.run,
        refit=refit,
        training=Training(_network, recipe),
        true_labels=truth,
        description={
            "data": "UCI handwritten digits, 8×8 grey levels (scikit-learn)",
            "network": "64-128-128-10, ReLU",
            "training": f"Adam, {recipe.epochs} full-batch steps, rate {recipe.rate:g}, L2 {recipe.decay:g}",
            "wrong labels": f"{options.label_noise:.0%} of the training labels, on purpose",
            "seed": str(options.seed),
        },
    )
