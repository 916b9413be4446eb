"""From data, a network and a recipe to a task: labels made wrong on purpose, the network trained or read, refits."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from torch import Tensor, nn

from memspace.progress import Progress
from memspace.task.builtin.options import BuildOptions, corrupt
from memspace.task.builtin.train import cached, fit
from memspace.task.data import Data
from memspace.task.recipe import Recipe, Training
from memspace.task.task import Task

__all__ = ["Ingredients", "trained_task"]


@dataclass(frozen=True)
class Ingredients:
    """What a built-in task of classes is made from.

    Args:
        network: makes a fresh network, from torch's random state.
        recipe: how it is trained; ``options.epochs`` replaces its epochs.
        x: training inputs (n, ...).
        y: right training labels, (n,) or (n, positions).
        test: inputs and labels of the test data.
        classes: how many.
        data: one clause on the data, for the report.
        architecture: one clause on the network.
        labelled: what a label is of, in "10% of the training labels".
    """

    network: Callable[[], nn.Module]
    recipe: Recipe
    x: Tensor
    y: Tensor
    test: tuple[Tensor, Tensor]
    classes: int
    data: str
    architecture: str
    labelled: str = "labels"


def trained_task(name: str, of: Ingredients, options: BuildOptions, progress: Progress, **fields: Any) -> Task:
    """Train the network on the labels, some of them wrong on purpose, or read it from the cache, and make the task.

    Args:
        name: of the task and of its file in the cache.
        of: data, network and recipe.
        options: seed, share of wrong labels, epochs, cache.
        progress: what shows the training.
        **fields: further fields of the task; they replace those made here.

    Returns:
        A task that can be refitted; test labels are never wrong.
    """
    recipe = replace(of.recipe, epochs=options.epochs or of.recipe.epochs)
    labels = corrupt(of.y, options.label_noise, of.classes, options.seed)
    trained = cached(of.network, of.x, labels, recipe, name=name, options=options, progress=progress)

    def refit(index: Tensor, seed: int) -> nn.Module:
        return fit(of.network, of.x[index], labels[index], recipe, seed=seed, record=False).model

    steps = (
        f"{recipe.epochs} full-batch steps" if recipe.batch is None else f"{recipe.epochs} epochs, batch {recipe.batch}"
    )
    made: dict[str, Any] = {
        "model": trained.model,
        "train": Data((of.x, labels)),
        "test": Data(of.test),
        "name": name,
        "decay": recipe.decay,
        "run": trained.run,
        "refit": refit,
        "training": Training(of.network, recipe),
        "true_labels": of.y,
        "description": {
            "data": of.data,
            "network": of.architecture,
            "training": f"Adam, {recipe.epochs} {steps}, rate {recipe.rate:g}, L2 {recipe.decay:g}",
            "wrong labels": f"{options.label_noise:.0%} of the training {of.labelled}, on purpose",
            "seed": str(options.seed),
        },
    }
    return Task(**(made | fields))
