"""The network with which a training first reaches a given training loss, and what is measured of it.

A training that is left alone passes a training loss between two steps. The network meant here lies on the straight
line between the weights after these two, where the training loss is the one asked for: a network of its own, whose
outcomes are measured and not interpolated.
"""

from __future__ import annotations

import copy

import torch
from scipy.optimize import brentq
from torch import Tensor, nn
from torch.nn.utils import parameters_to_vector, vector_to_parameters

from memspace.action.depth_regulariser import DepthAction
from memspace.experiments.action_methods import LAW
from memspace.experiments.action_network import BLOCKS, DataSplit, Examples
from memspace.experiments.action_outcomes import PROBE, accuracy, best_temperature, fitted, loss, norm_of
from memspace.geometry.distance import squared_distances

__all__ = ["Crossing"]

PART_OF_A_STEP = 1e-4  # to which the place between two steps is solved for


class Crossing:
    """Weights between two readings of a training, and the network that crosses the training loss among them.

    Args:
        model: the network in training; a copy of it is read, so that its hooks see nothing of it.
        examples: the data.
        split: the seed's examples.
        level: the training loss, nats.
    """

    def __init__(self, model: nn.Module, examples: Examples, split: DataSplit, level: float) -> None:
        self._model, self._twin = model, copy.deepcopy(model).eval()
        self._examples, self._split, self._level = examples, split, level
        self._steps: list[tuple[int, Tensor]] = []  # weights since the last reading above the level
        self.values: dict[str, float] = {}

    @torch.no_grad()
    def keep(self, step: int) -> None:
        """Keep the weights after a step, until the loss was reached.

        Args:
            step: its number; 0 before the first.
        """
        if not self.values:
            self._steps.append((step, parameters_to_vector(self._model.parameters()).detach().clone()))

    @torch.no_grad()
    def read(self, train_loss: float, squared: list[Tensor], probe: Tensor | None) -> None:
        """Look, at a reading of the training, whether the loss was reached; if so, measure the network that did.

        Args:
            train_loss: at this reading.
            squared: squared lengths of the path between the readings before.
            probe: outputs on the first training examples at the reading before; None at the first.
        """
        if self.values:
            return
        if not train_loss <= self._level:  # a loss that is no number has reached nothing
            self._steps = self._steps[-1:]
            return
        step = self._put()
        f = self._twin(self._split.x).double()
        if probe is not None:
            squared = [*squared, squared_distances(LAW, probe, f[:PROBE]).mean()]
        self.values = {"step": step} | self._measured(f) | path_of(squared)
        self._steps = []

    def _loss(self, weights: Tensor) -> float:
        vector_to_parameters(weights, self._twin.parameters())
        return loss(self._twin(self._split.x), self._split.y)

    def _put(self) -> float:
        """Put the crossing weights into the copy and give their step: a whole number and a part of one."""
        low, high = 0, len(self._steps) - 1  # above the level, and at or below it
        while high - low > 1:
            middle = (low + high) // 2
            if self._loss(self._steps[middle][1]) <= self._level:
                high = middle
            else:
                low = middle
        (step, before), (_, after) = self._steps[low], self._steps[high]
        if low == high or self._loss(before) <= self._level:  # reached before the first step
            self._loss(before)
            return float(step)

        def above(part: float) -> float:
            return self._loss(torch.lerp(before, after, part)) - self._level

        part = float(brentq(above, 0, 1, xtol=PART_OF_A_STEP))
        above(part)  # the copy has these weights
        return step + part

    def _measured(self, f: Tensor) -> dict[str, float]:
        e, s, twin = self._examples, self._split, self._twin
        f_test, f_valid = twin(e.x_test).double(), twin(s.x_valid).double()
        with DepthAction(twin, BLOCKS) as kinetic:
            twin(s.x)
            energy = float(kinetic())
        return {
            "train_loss": loss(f, s.y),
            "test_loss": loss(f_test, e.y_test),
            "calibrated_loss": loss(f_test / best_temperature(f_valid, s.y_valid), e.y_test),
            "train_accuracy": accuracy(f, s.y),
            "test_accuracy": accuracy(f_test, e.y_test),
            "memorised": fitted(f, s),
            "fisher_rao_norm": norm_of(twin, s.x, s.y),
            "weight_norm": float(torch.cat([p.flatten() for p in twin.parameters()]).double().norm()),
            "depth_action": energy,
        }


def path_of(squared: list[Tensor]) -> dict[str, float]:
    """Compute length and action of a path from its squared chords.

    Args:
        squared: mean squared Fisher–Rao distances between successive readings, nats.

    Returns:
        ``length`` in nats^½, and ``action`` ½L² at unit time in nats.
    """
    length = float(torch.stack(squared).sqrt().sum()) if squared else 0.0
    return {"length": length, "action": length**2 / 2}
