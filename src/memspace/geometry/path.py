"""Paths of configurations, measured through what they predict on a fixed probe set."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from memspace.geometry.distance import squared_distances
from memspace.passes.outputs import outputs
from memspace.progress import Progress, Silent
from memspace.task.likelihood import Likelihood
from memspace.task.task import Task

__all__ = ["Walk", "outputs_along", "straight_line", "walk"]

State = Mapping[str, Tensor]


def outputs_along(
    task: Task, states: Sequence[State], index: Tensor, progress: Progress | None = None, what: str = "path"
) -> tuple[Tensor, Tensor]:
    """Outputs of every state on the probe examples, (S, n, ..., C), and their labels."""
    progress = progress or Silent()
    fs = []
    y = torch.empty(0)
    for state in progress.track(states, what, len(states)):
        f, y = outputs(task, task.train, state=state, index=index)
        fs.append(f.double())
    return torch.stack(fs), y


def straight_line(a: State, b: State, points: int) -> list[dict[str, Tensor]]:
    """``points`` states evenly on the segment from a to b; what is not floating is taken from b."""
    shares = torch.linspace(0, 1, points, dtype=torch.float64).tolist()
    return [{k: torch.lerp(a[k], b[k], t) if b[k].is_floating_point() else b[k] for k in b} for t in shares]


@dataclass(frozen=True)
class Walk:
    """A discretised path through predictions.

    Args:
        squared: squared Fisher–Rao step per example, (S−1, n) nats.
        coarse: length through every second node, for the discretisation error.
    """

    squared: Tensor
    coarse: float

    @property
    def steps(self) -> Tensor:
        """Fisher–Rao length of every step, (S−1,) nats^½."""
        return self.squared.mean(1).sqrt()

    @property
    def length(self) -> float:
        """Sum of the steps: a lower bound of the continuous path's length."""
        return float(self.steps.sum())

    @property
    def error(self) -> float:
        """What a last halving of the step changed."""
        return self.length - self.coarse

    def action(self, time: Sequence[float]) -> float:
        """½ Σ d²/Δt over the given clock, nats per unit time."""
        dt = torch.diff(torch.tensor(list(time), dtype=torch.float64))
        moving = dt > 0
        return float((0.5 * self.squared.mean(1)[moving] / dt[moving]).sum())

    def length_error(self) -> float:
        """Standard error of the length over examples (delta method, steps taken jointly)."""
        steps = self.steps.clamp_min(1e-300)
        each = (self.squared / (2 * steps.unsqueeze(1))).sum(0)
        return float(each.std()) / each.shape[0] ** 0.5 if each.shape[0] > 1 else 0.0


def walk(likelihood: Likelihood, f: Tensor, weight: Tensor | None = None) -> Walk:
    """Measure a path from outputs along it, (S, n, ..., C)."""
    squared = torch.stack([squared_distances(likelihood, a, b, weight) for a, b in itertools.pairwise(f)])
    nodes = [*range(0, len(f), 2)]
    if nodes[-1] != len(f) - 1:
        nodes.append(len(f) - 1)
    coarse = sum(
        float(squared_distances(likelihood, f[a], f[b], weight).mean().sqrt()) for a, b in itertools.pairwise(nodes)
    )
    return Walk(squared, coarse)
