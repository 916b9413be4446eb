"""What a change of weights costs, measured on examples with its gradient: departure from a network, or its loss."""

from __future__ import annotations

import torch
from torch import Tensor

from memspace.passes.linearise import function_of_parameters
from memspace.passes.outputs import outputs
from memspace.passes.space import ParameterSpace
from memspace.task.checks import evaluating
from memspace.task.data import move
from memspace.task.task import Task

__all__ = ["OBJECTIVES", "Objective"]

OBJECTIVES = ("function", "loss")


class Objective:
    """A function of the weights that pruning keeps small, per example, in nats (summed over positions):

    * ``function``: KL(p_θ0 ‖ p_θ), how far predictions moved from the network as it was; its gradient at θ0 is zero
      and it needs no labels;
    * ``loss``: −log p_θ(y) + decay/2 ‖θ‖², what training made small; wrong labels count.

    The second-order term of both is the Fisher information at θ (of ``loss``: the Gauss–Newton part).

    Args:
        task: the network and its training data.
        space: the parameters.
        name: ``function`` or ``loss``.
        index: (m,) training examples it is measured on; None: all.

    Raises:
        ValueError: an unknown name.
    """

    def __init__(self, task: Task, space: ParameterSpace, name: str = "function", index: Tensor | None = None) -> None:
        if name not in OBJECTIVES:
            raise ValueError(f"the objective is one of {', '.join(OBJECTIVES)}, got {name!r}")
        self.name, self._task, self._space = name, task, space
        self.index = torch.arange(len(task.train)) if index is None else index
        self._before, self._y = outputs(task, task.train, index=self.index)

    @property
    def curvature(self) -> float:
        """Coefficient of I that the objective adds to the Fisher information."""
        return (self._task.decay or 0.0) if self.name == "loss" else 0.0

    def __call__(self, flat: Tensor) -> float:
        """Mean over the examples at the weights ``flat`` (P,)."""
        f, _ = outputs(self._task, self._task.train, state=self._space.unpack(flat), index=self.index)
        terms = self._each(self._before.double(), f.double(), self._y)
        return float(terms.sum()) / len(f) + 0.5 * self.curvature * float(flat.double().square().sum())

    def gradient(self, flat: Tensor) -> Tensor:
        """Compute the gradient by the weights.

        Args:
            flat: (P,) weights.

        Returns:
            (P,) float64, nats per unit of weight.
        """
        task, start = self._task, 0
        at = {n: p.detach().clone().requires_grad_() for n, p in self._space.unpack(flat).items()}
        total = torch.zeros(self._space.size, dtype=torch.float64, device=flat.device)
        with evaluating(task.model), torch.enable_grad():
            for part in task.train.batches(512, self.index):
                f = function_of_parameters(task, move(part.x, task.device, task.dtype))(at)
                before = self._before[start : start + len(part)]
                start += len(part)
                terms = self._each(before, f, move(part.y, task.device))
                grads = torch.autograd.grad(terms.sum(), list(at.values()), allow_unused=True)
                filled = (torch.zeros_like(p) if g is None else g for g, p in zip(grads, at.values(), strict=True))
                total += self._space.pack(dict(zip(at, filled, strict=True))).double()
        return total / len(self.index) + self.curvature * flat.double()

    def _each(self, before: Tensor, f: Tensor, y: Tensor) -> Tensor:
        law = self._task.likelihood
        return law.kl(before, f) * law.weight(f, y) if self.name == "function" else law.nll(f, y)
