"""Paths of configurations, measured through what they predict on a fixed probe set.

Only the ends of every step are seen, so each step counts as its closed-form Fisher–Rao distance. For a smooth path the
length found falls short by a term of second order in the step; a noisy path (stochastic gradient descent recorded
coarsely) is another matter: its length grows with every refinement, so a length without its stride means little.
"""

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

__all__ = ["Walk", "every_second", "outputs_along", "straight_line", "walk"]

State = Mapping[str, Tensor]


def outputs_along(
    task: Task, states: Sequence[State], index: Tensor, progress: Progress | None = None, what: str = "path"
) -> tuple[Tensor, Tensor]:
    """Compute the outputs of every state on the probe examples.

    The model itself is not touched: each state replaces its tensors for one call.

    Args:
        task: the model, its law and data.
        states: S state dicts along the path.
        index: places of the probe examples in the training data, (n,).
        progress: told of every state.
        what: how progress names the work.

    Returns:
        Outputs (S, n, ..., C) in float64, and the examples' labels.
    """
    progress = progress or Silent()
    fs = []
    y = torch.empty(0)
    for state in progress.track(states, what, len(states)):
        f, y = outputs(task, task.train, state=state, index=index)
        fs.append(f.double())
    return torch.stack(fs), y


def straight_line(a: State, b: State, points: int) -> list[dict[str, Tensor]]:
    """Place states evenly on the segment between two states.

    Args:
        a: the first state.
        b: the last state; tensors that are not floating are taken from it.
        points: number of states, both ends among them.

    Returns:
        State dicts from a to b.
    """
    shares = torch.linspace(0, 1, points, dtype=torch.float64).tolist()
    return [{k: torch.lerp(a[k], b[k], t) if b[k].is_floating_point() else b[k] for k in b} for t in shares]


def every_second(count: int) -> list[int]:
    """Take every second of a path's nodes.

    Args:
        count: number of nodes.

    Returns:
        Positions 0, 2, 4, ..., the last node always among them.
    """
    nodes = list(range(0, count, 2))
    return nodes if nodes[-1] == count - 1 else [*nodes, count - 1]


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
        """Sum of the steps: a lower bound of the continuous path's length, never below its ends' distance."""
        return float(self.steps.sum())

    @property
    def smooth(self) -> float:
        """Length of the continuous path, where it is smooth between the nodes: Richardson's estimate."""
        return self.length + max(0.0, self.error) / 3

    @property
    def upper(self) -> float:
        """Upper bound of the continuous path's length, also where its step converges to first order only (kinks)."""
        return self.length + max(0.0, self.error)

    @property
    def error(self) -> float:
        """Change of the length by the last halving of the step; a third of it remains where the path is smooth."""
        return self.length - self.coarse

    def action(self, time: Sequence[float]) -> float:
        """Compute the action ½ Σ d²/Δt over a clock; it is at least length²/(2·duration).

        Args:
            time: the clock at every node, increasing, (S,).

        Returns:
            Nats per unit time.

        Raises:
            ValueError: the clock does not move forward.
        """
        return float((0.5 * self.squared.mean(1) / _forward(time).to(self.squared)).sum())

    def step_effects(self) -> Tensor:
        """Differentiate every step's length by the examples' weights, to first order.

        Returns:
            (S−1, n) nats^½, mean zero over the examples.
        """
        steps = self.steps.unsqueeze(1)
        return torch.where(steps > 0, (self.squared - steps.square()) / (2 * steps.clamp_min(1e-300)), 0.0)

    def length_effect(self) -> Tensor:
        """Differentiate the length by the examples' weights, to first order.

        Returns:
            (n,) nats^½, mean zero.
        """
        return self.step_effects().sum(0)

    def action_effect(self, time: Sequence[float]) -> Tensor:
        """Differentiate :meth:`action` by the examples' weights, to first order.

        Args:
            time: the clock at every node, increasing, (S,).

        Returns:
            (n,) nats per unit time, mean zero.

        Raises:
            ValueError: the clock does not move forward.
        """
        action = (0.5 * self.squared / _forward(time).to(self.squared).unsqueeze(1)).sum(0)
        return action - action.mean()

    def length_error(self) -> float:
        """Estimate the standard error of the length over examples (delta method, steps taken jointly).

        Returns:
            Nats^½; 0 for a single example.
        """
        n = self.squared.shape[1]
        return float(self.length_effect().std()) / n**0.5 if n > 1 else 0.0


def _forward(time: Sequence[float]) -> Tensor:
    dt = torch.diff(torch.tensor(list(time), dtype=torch.float64))
    if not bool((dt > 0).all()):
        raise ValueError("an action needs a clock that moves forward at every node")
    return dt


def walk(likelihood: Likelihood, f: Tensor, weight: Tensor | None = None) -> Walk:
    """Measure a path from the outputs along it.

    Args:
        likelihood: the output law.
        f: outputs (S, n, ..., C) along the path.
        weight: (n, ...): 0 for padded positions.

    Returns:
        The path's squared steps per example; as exact as the law's distance.
    """
    squared = torch.stack([squared_distances(likelihood, a, b, weight) for a, b in itertools.pairwise(f)])
    coarse = sum(
        float(squared_distances(likelihood, f[a], f[b], weight).mean().sqrt())
        for a, b in itertools.pairwise(every_second(len(f)))
    )
    return Walk(squared, coarse)
