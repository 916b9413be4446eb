"""One step of an optimiser and its adjoint in closed form, on flat vectors: for a gradient through a training."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor

from memspace.task.recipe import Recipe

__all__ = ["Adam", "Optimiser", "Sgd", "State", "optimiser_of"]

State = tuple[Tensor, ...]  # the weights θ (P,) first, then the optimiser's own vectors (P,)


class Optimiser(ABC):
    """An optimiser as state' = step(state, gradient) with its adjoint; ``slots`` vectors next to the weights."""

    slots: int  # vectors next to the weights

    def start(self, theta: Tensor) -> State:
        """Make the state before the first step.

        Args:
            theta: weights (P,).

        Returns:
            The weights and zeros.
        """
        return (theta, *(torch.zeros_like(theta) for _ in range(self.slots)))

    @abstractmethod
    def step(self, state: State, gradient: Tensor, rate: float, count: int) -> State:
        """Take one step.

        Args:
            state: before the step.
            gradient: g (P,) of the whole loss, decay included.
            rate: the learning rate.
            count: number of the step, from 1.

        Returns:
            The state after it.
        """

    @abstractmethod
    def adjoint(self, state: State, gradient: Tensor, after: State, rate: float, count: int) -> tuple[State, Tensor]:
        """Pull derivatives by the state after a step back to before it.

        Args:
            state: as it was in :meth:`step`.
            gradient: as it was in :meth:`step`.
            after: derivatives (Q, P) of Q outcomes by the state after the step, one per entry of the state.
            rate: as it was in :meth:`step`.
            count: as it was in :meth:`step`.

        Returns:
            Derivatives by the state before the step at fixed gradient, and derivatives by the gradient, (Q, P) each.
        """


@dataclass(frozen=True)
class Sgd(Optimiser):
    """b' = μb + g, θ' = θ − ηb' (Polyak 1964, as in torch: no dampening; μ = 0 is plain descent).

    Args:
        momentum: μ.
        slots: vectors kept next to the weights.
    """

    momentum: float
    slots: int = 1

    def step(self, state: State, gradient: Tensor, rate: float, count: int) -> State:
        """Two axpys."""
        theta, b = state
        b = self.momentum * b + gradient
        return theta - rate * b, b

    def adjoint(self, state: State, gradient: Tensor, after: State, rate: float, count: int) -> tuple[State, Tensor]:
        """λ_g = λ_b' − ηλ_θ', λ_b = μλ_g, λ_θ = λ_θ'."""
        by_theta, by_b = after
        by_gradient = by_b - rate * by_theta
        return (by_theta, self.momentum * by_gradient), by_gradient


@dataclass(frozen=True)
class Adam(Optimiser):
    """m' = β₁m + (1−β₁)g, v' = β₂v + (1−β₂)g², θ' = θ − η m̂ / (√v̂ + ε) with bias-corrected m̂, v̂ (Kingma & Ba 2015).

    Args:
        beta1: β₁.
        beta2: β₂.
        epsilon: ε.
        slots: vectors kept next to the weights.
    """

    beta1: float = 0.9
    beta2: float = 0.999
    epsilon: float = 1e-8
    slots: int = 2

    def _moments(self, state: State, g: Tensor) -> tuple[Tensor, Tensor]:
        _, m, v = state
        return self.beta1 * m + (1 - self.beta1) * g, self.beta2 * v + (1 - self.beta2) * g * g

    def _corrections(self, count: int) -> tuple[float, float]:
        return 1 - self.beta1**count, math.sqrt(1 - self.beta2**count)

    def step(self, state: State, gradient: Tensor, rate: float, count: int) -> State:
        """As ``torch.optim.Adam`` with coupled decay."""
        m, v = self._moments(state, gradient)
        first, second = self._corrections(count)
        return state[0] - rate / first * m / (v.sqrt() / second + self.epsilon), m, v

    def adjoint(self, state: State, gradient: Tensor, after: State, rate: float, count: int) -> tuple[State, Tensor]:
        """The derivative of √v' is taken as 0 where v' = 0: such a weight has never had a gradient."""
        by_theta, by_m, by_v = after
        m, v = self._moments(state, gradient)
        first, second = self._corrections(count)
        root = v.sqrt()
        scale = root / second + self.epsilon
        by_m = by_m - rate / first * by_theta / scale
        slope = torch.where(v > 0, m / (scale * scale * root), torch.zeros_like(m))
        by_v = by_v + rate / (2 * first * second) * by_theta * slope
        by_gradient = (1 - self.beta1) * by_m + 2 * (1 - self.beta2) * gradient * by_v
        return (by_theta, self.beta1 * by_m, self.beta2 * by_v), by_gradient


def optimiser_of(recipe: Recipe) -> Optimiser:
    """Make the recipe's optimiser.

    Args:
        recipe: of a training.

    Returns:
        Its step and adjoint.
    """
    return Sgd(recipe.momentum) if recipe.optimiser == "sgd" else Adam()
