"""Chains for exp(−Φ(v)) relative to a Gaussian N(0, C), with or without the correction of Metropolis.

Hybrid Monte Carlo in the form of Beskos et al. 2011: a momentum p ~ N(0, C) is drawn, then ``leaps`` times

    p ← p − h/2 C∇Φ(v),   (v, p) ← rotation of (v, p) by the angle h,   p ← p − h/2 C∇Φ(v).

Where Φ is constant this draws from N(0, C) exactly, so directions in which only the Gaussian holds the weights cost no
acceptance, however many there are. One leap is a step of the Langevin equation with preconditioner C and time h².
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

__all__ = ["Chains", "Path", "QuadraticPart", "run_chains"]

Potential = Callable[[Tensor], tuple[Tensor, Tensor, Tensor]]
LARGEST, FIRST = 1.5, 0.3  # h, radians
JITTER = 0.7  # share by which h is at most shorter: it varies, so that no path closes on itself or is always refused


@dataclass(frozen=True)
class QuadraticPart:
    """N(0, C) with C⁻¹ = γI + Vᵀ diag(s) V.

    Args:
        precision: γ.
        directions: V (k, P), orthonormal rows.
        added: s (k,), not negative.
    """

    precision: float
    directions: Tensor
    added: Tensor

    def covariance(self, x: Tensor) -> Tensor:
        """Multiply by C.

        Args:
            x: (K, P).

        Returns:
            (K, P).
        """
        return self._filtered(x, 1 / (self.precision + self.added), 1 / self.precision)

    def root(self, x: Tensor) -> Tensor:
        """Multiply by C^½.

        Args:
            x: (K, P).

        Returns:
            (K, P).
        """
        return self._filtered(x, (self.precision + self.added).rsqrt(), self.precision**-0.5)

    def energy(self, x: Tensor) -> Tensor:
        """Compute ½ xᵀC⁻¹x.

        Args:
            x: (K, P).

        Returns:
            (K,).
        """
        square: Tensor = self.precision * x.square().sum(1)
        if len(self.added):
            square = square + (self.added * (x @ self.directions.t()).square()).sum(1)
        return square / 2

    def _filtered(self, x: Tensor, inside: Tensor, outside: float) -> Tensor:
        if not len(self.added):
            return outside * x
        return outside * x + ((x @ self.directions.t()) * (inside - outside)) @ self.directions


@dataclass(frozen=True)
class Path:
    """How far a chain moves between draws.

    Args:
        leaps: evaluations of the gradient.
        step: h, radians, at most: each path of a chain that is corrected draws its own; None: adapted in the warm-up.
        correct: whether the end is accepted or refused, so that the chains have exactly the wanted law; ends of
            infinite or undefined Φ never are accepted. Otherwise all are taken, with an error of the order of h².
    """

    leaps: int
    step: float | None
    correct: bool

    @property
    def target(self) -> float:
        """Acceptance that moves fastest: 0.574 for one leap (Roberts & Rosenthal 1998), 0.65 for several."""
        return 0.574 if self.leaps == 1 else 0.65


@dataclass(frozen=True)
class Chains:
    """Several chains after their warm-up.

    Args:
        values: (chains, steps) of the recorded quantity.
        squares: (chains, steps) ‖v‖².
        acceptance: mean acceptance probability.
        step: h, radians.
    """

    values: Tensor
    squares: Tensor
    acceptance: float
    step: float


@dataclass
class _State:
    """Where the chains are: v (K, P), Φ (K,), ∇Φ (K, P) and the recorded quantity (K,)."""

    v: Tensor
    phi: Tensor
    gradient: Tensor
    value: Tensor

    def moved(self, other: _State, where: Tensor) -> _State:
        row = where.unsqueeze(1)
        return _State(
            torch.where(row, other.v, self.v),
            torch.where(where, other.phi, self.phi),
            torch.where(row, other.gradient, self.gradient),
            torch.where(where, other.value, self.value),
        )


def run_chains(
    potential: Potential,
    reference: QuadraticPart,
    start: Tensor,
    path: Path,
    *,
    warmup: int,
    steps: int,
    generator: torch.Generator,
) -> Chains:
    """Run chains side by side.

    Args:
        potential: v (K, P) ↦ Φ (K,), ∇Φ (K, P) and the quantity to record (K,).
        reference: N(0, C).
        start: (K, P).
        path: between draws.
        warmup: paths before those that count.
        steps: paths whose ends are recorded.
        generator: of random numbers.

    Returns:
        What was recorded.
    """
    now = _State(start, *potential(start))
    h = FIRST if path.step is None else path.step
    values, squares, accepted = [], [], []
    for k in range(warmup + steps):
        xi = torch.randn(start.shape, generator=generator, dtype=torch.float64).to(start)
        uniform = torch.rand(2, len(start), generator=generator, dtype=torch.float64).to(start)
        angle = h * (1 - JITTER * uniform[0]) if path.correct else torch.full_like(uniform[0], h)
        new, chance = _followed(potential, reference, now, reference.root(xi), angle, path.leaps)
        now = now.moved(new, uniform[1] < chance) if path.correct else new
        if k < warmup:
            if path.step is None:  # Robbins and Monro, in log h
                h = min(LARGEST, max(1e-6, h * math.exp((float(chance.mean()) - path.target) / math.sqrt(1 + k))))
            continue
        values.append(now.value)
        squares.append(now.v.square().sum(1))
        accepted.append(chance.mean())
    return Chains(torch.stack(values, 1), torch.stack(squares, 1), float(torch.stack(accepted).mean()), h)


def _followed(
    potential: Potential, reference: QuadraticPart, now: _State, momentum: Tensor, angle: Tensor, leaps: int
) -> tuple[_State, Tensor]:
    """The end of a path and the chance (K,) to accept it."""
    before = now.phi + reference.energy(now.v) + reference.energy(momentum)
    half, cos, sin = (x.unsqueeze(1) for x in (angle / 2, angle.cos(), angle.sin()))
    new, p = now, momentum
    for _ in range(leaps):
        p = p - half * reference.covariance(new.gradient)
        v, p = cos * new.v + sin * p, cos * p - sin * new.v
        new = _State(v, *potential(v))
        p = p - half * reference.covariance(new.gradient)
    after = new.phi + reference.energy(new.v) + reference.energy(p)
    chance = torch.nan_to_num((before - after).clamp(max=0).exp(), 0.0)
    return new, torch.where(torch.isfinite(new.gradient).all(1), chance, torch.zeros_like(chance))
