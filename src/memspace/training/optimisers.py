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
    """state' = step(state, gradient), and how derivatives with respect to state' become derivatives before the step."""

    slots: int  # vectors kept beside the weights

    def start(self, theta: Tensor) -> State:
        """The state before the first step."""
        return (theta, *(torch.zeros_like(theta) for _ in range(self.slots)))

    @abstractmethod
    def step(self, state: State, gradient: Tensor, rate: float, count: int) -> State:
        """The state after step ``count`` (from 1) with gradient g (P,) of the whole loss, decay included."""

    @abstractmethod
    def adjoint(self, state: State, gradient: Tensor, after: State, rate: float, count: int) -> tuple[State, Tensor]:
        """(derivatives by the state before the step at fixed gradient, derivatives by the gradient).

        Args:
            state, gradient, rate, count: as they were in :meth:`step`.
            after: derivatives (Q, P) of Q outcomes by the state after the step, one per entry of the state.
        """


@dataclass(frozen=True)
class Sgd(Optimiser):
    """b' = μb + g, θ' = θ − ηb' (Polyak 1964, as in torch: no dampening; μ = 0 is plain descent)."""

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
    """m' = β₁m + (1−β₁)g, v' = β₂v + (1−β₂)g², θ' = θ − η m̂ / (√v̂ + ε) with bias-corrected m̂, v̂ (Kingma & Ba 2015)."""

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
    """The recipe's optimiser."""
    return Sgd(recipe.momentum) if recipe.optimiser == "sgd" else Adam()
