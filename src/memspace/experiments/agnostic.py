"""How much a topology holds before any weight is learned: every weight one shared value (Gaier & Ha 2019).

A topology is which connections there are and, optionally, each one's sign; biases are zero. With all connections and no
signs all outputs are equal, so a dense network scores chance. Per topology: the mean accuracy over a fixed grid of
shared values, and the test accuracy at the value that is best on the training examples (choosing on the test set would
flatter). The baseline is the most frequent class.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from memspace.errors import TaskError
from memspace.measurement import Measurement, from_samples
from memspace.measures.correct import accuracy
from memspace.passes.outputs import outputs
from memspace.progress import Progress, Silent
from memspace.task.task import Task

__all__ = ["GRID", "AgnosticScore", "Topology", "agnostic_scores", "random_topologies", "topology_of"]

GRID = (-2.0, -1.5, -1.0, -0.5, 0.5, 1.0, 1.5, 2.0)  # Gaier & Ha's range

Topology = dict[str, Tensor]
"""Parameter name → −1, 0 or 1 per weight; only weight matrices."""


@dataclass(frozen=True)
class AgnosticScore:
    """Scores of T topologies.

    Args:
        values: the grid (V,).
        accuracy: (T, V), test accuracy at each shared value.
        best: (T,) test accuracy at the value that is best on training examples.
        chance: share of the most frequent test class.
        n: number of test examples.
    """

    values: np.ndarray
    accuracy: np.ndarray
    best: np.ndarray
    chance: float
    n: int

    def measurements(self, name: str) -> tuple[Measurement, ...]:
        """State mean over the grid and best, averaged over topologies, with intervals over topologies.

        Args:
            name: the measurements' names begin with it.

        Returns:
            ``.mean``, ``.best`` and ``.chance``.
        """
        grid = f"test accuracy with one shared weight, mean over {len(self.values)} values"
        best = "test accuracy with the one shared weight that is best on training data"
        where = "gaier2019"
        return (
            from_samples(f"{name}.mean", self.accuracy.mean(1).tolist(), "1", grid, source=where),
            from_samples(f"{name}.best", self.best.tolist(), "1", best, source=where),
            Measurement(f"{name}.chance", self.chance, "1", "share of the most frequent class", self.n),
        )


def _matrices(task: Task) -> dict[str, Tensor]:
    return {k: p.detach() for k, p in task.model.named_parameters() if p.dim() > 1}


def random_topologies(task: Task, count: int, density: float, *, signs: bool = True, seed: int = 0) -> list[Topology]:
    """Draw topologies: each connection there with a probability, of either sign alike (or all positive).

    Args:
        task: the network whose weight matrices they are of.
        count: number of topologies.
        density: probability of a connection, in (0, 1].
        signs: draw signs too.
        seed: of the draws.

    Returns:
        ``count`` topologies.

    Raises:
        ValueError: a density out of its range.
    """
    if not 0 < density <= 1:
        raise ValueError(f"density lies in (0, 1], got {density}")
    generator = torch.Generator().manual_seed(seed)
    topologies = []
    for _ in range(count):
        one = {}
        for name, p in _matrices(task).items():
            there = (torch.rand(p.shape, generator=generator) < density).to(p.dtype)
            sign = torch.randint(0, 2, p.shape, generator=generator).to(p.dtype) * 2 - 1
            one[name] = there * sign if signs else there
        topologies.append(one)
    return topologies


def topology_of(task: Task, state: Mapping[str, Tensor] | None = None, *, signs: bool = True) -> Topology:
    """Read the connections (and signs) of a network: its weights that are not zero.

    Args:
        task: the network.
        state: other weights of it.
        signs: keep the signs.

    Returns:
        The topology.
    """
    source = _matrices(task) if state is None else {k: state[k] for k in _matrices(task)}
    return {k: v.sign() if signs else (v != 0).to(v.dtype) for k, v in source.items()}


def agnostic_scores(
    task: Task,
    topologies: Sequence[Topology],
    *,
    grid: Sequence[float] = GRID,
    examples: int = 2000,
    progress: Progress | None = None,
) -> AgnosticScore:
    """Score every topology at every shared value w: each weight is w times its sign, scaled to its fan-in.

    The scale 1/√(connections into the unit, averaged over the layer) keeps signals in range in deep networks; it is a
    function of the topology alone, so there is still one number per network.

    Args:
        task: the network, its law and data.
        topologies: T of them.
        grid: shared values.
        examples: number of training examples the best value is chosen on.
        progress: told of every topology.

    Returns:
        Accuracies, and chance's.

    Raises:
        TaskError: the output law has no classes.
    """
    if not task.likelihood.classifies:
        raise TaskError(
            "a weight-agnostic score is an accuracy",
            where=task.likelihood.name,
            remedy="use a task with classes",
        )
    progress = progress or Silent()
    data = task.test if task.test is not None else task.train
    index = torch.arange(min(examples, len(task.train)))
    rest = {k: torch.zeros_like(p) for k, p in task.model.named_parameters() if p.dim() == 1 and k.endswith("bias")}
    test, train = np.zeros((len(topologies), len(grid))), np.zeros((len(topologies), len(grid)))
    for t, topology in enumerate(progress.track(topologies, "weight-agnostic score", len(topologies))):
        shaped = {}
        for name, sign in topology.items():
            into = sign.flatten(1).abs().sum(1).mean().clamp_min(1)
            shaped[name] = (sign / into.sqrt()).to(task.device, task.dtype)
        for v, value in enumerate(grid):
            state = rest | {k: value * s for k, s in shaped.items()}
            for table, part, chosen in ((test, data, None), (train, task.train, index)):
                f, y = outputs(task, part, state=state, index=chosen)
                table[t, v] = accuracy(task.likelihood, f, y)
    labels = data.labels().flatten()
    labels = labels[labels >= 0]
    chance = float(torch.bincount(labels).max()) / len(labels)
    best = test[np.arange(len(topologies)), train.argmax(1)]
    return AgnosticScore(np.asarray(grid), test, best, chance, len(data))
