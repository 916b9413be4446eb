"""The damping of leave-one-out estimates: given, known, matched to refits, or of greatest evidence, in that order."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from memspace.measures.correct import by_example
from memspace.measures.damping import GRID, DampingChoice, Rule, damping_unit, first_choice
from memspace.measures.values import HeldOut
from memspace.metric.metric import FisherMetric
from memspace.passes.space import ParameterSpace
from memspace.task.task import Task

__all__ = ["Calibration", "Estimates"]

Estimates = Callable[[tuple[float, ...], Tensor], Sequence[Tensor]]


@dataclass(frozen=True)
class Calibration:
    """What the damping of leave-one-out estimates is chosen by.

    Args:
        task: the network and its data.
        space: the parameters.
        metric: F of the training data.
        y: labels of the training data.
        estimates: (γ values, positions (m,)) ↦ for every γ the leave-one-out outputs (m, C) of the training examples
            there, or their losses (m,) in nats.
        grid: γ values compared, ascending; None: ``GRID`` in the metric's unit.
    """

    task: Task
    space: ParameterSpace
    metric: FisherMetric
    y: Tensor
    estimates: Estimates
    grid: tuple[float, ...] | None = None

    def choose(self, given: float | None, held_out: HeldOut | None, *known: Rule) -> DampingChoice:
        """Choose γ.

        Args:
            given: the user's own γ, or None.
            held_out: outputs of networks that did not see the examples, or None.
            known: rules by which theory knows γ, where they apply (see ``stationary.known_damping``).

        Returns:
            the choice.
        """
        return first_choice(given, *known, lambda: self._matched(held_out), otherwise=self._evidence)

    def _evidence(self) -> DampingChoice:
        return DampingChoice.evidence(self.metric, self.space.flat(self.task.model), len(self.y))

    def _matched(self, held_out: HeldOut | None) -> DampingChoice | None:
        """Where leave-one-out meets the held-out losses, on the labels as given: no noise model enters."""
        if held_out is None:
            return None
        grid, law = self.grid, self.task.likelihood
        if grid is None:
            unit = damping_unit(self.metric)
            grid = tuple(g * unit for g in GRID)
        seen = self.y[held_out.index.to(self.y.device)]
        target = by_example(law.excess(held_out.f.double(), seen))
        estimates = self.estimates(grid, held_out.index)
        losses = [e if e.dim() == 1 else by_example(law.excess(e, seen)) for e in estimates]
        what = "networks that did not see the examples"
        return DampingChoice.matched(torch.stack(losses), grid, target, what)
