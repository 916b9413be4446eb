"""SU(2) with one penalised direction: a circuit of one qubit whose gates about the third axis cost √p times as much.

dU/dt = −iHU, H = Σ h_a σ_a, ds² = h₁² + h₂² + p h₃² (Nielsen 2006; a Berger sphere). The metric does not change when
U is multiplied from the right, and geodesics are known:
U(t) = exp(−i(1−p)h₃σ₃t) exp(−i(h₁σ₁ + h₂σ₂ + p h₃σ₃)t) U(0). Which of them is shortest is a matter of one scalar
equation; beyond the cut locus it is not the straight one.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from scipy.optimize import brentq
from torch import Tensor

from memspace.geometry.manifold import KnownManifold

__all__ = ["SU2", "coordinates"]

SCAN = 721  # points a family of geodesics is looked through at, before roots are refined


class SU2(KnownManifold):
    """SU(2) with a penalised third direction; coordinates x (3,): U = exp(−i x·σ), |x| < π.

    Args:
        penalty: p > 0.

    Raises:
        ValueError: a penalty that is not positive.
    """

    def __init__(self, penalty: float) -> None:
        if not penalty > 0:
            raise ValueError(f"the penalty must be positive, got {penalty}")
        self.size, self.penalty = 3, float(penalty)

    @property
    def _weights(self) -> Tensor:
        return torch.tensor([1.0, 1.0, self.penalty], dtype=torch.float64)

    def metric(self, x: Tensor) -> Tensor:
        """JᵀDJ with D = diag(1, 1, p) and J the map from the velocity of x to h."""
        frame = _frame(x)
        return frame.t() @ (self._weights.to(x).unsqueeze(1) * frame)

    def distance(self, x: Tensor, y: Tensor) -> Tensor:
        """The shortest of all geodesics that meet y."""
        h = self._shortest(_times(_unit(y), _inverse(_unit(x))))
        return (self._weights * h.square()).sum().sqrt().to(x)

    def exp(self, x: Tensor, v: Tensor) -> Tensor:
        """In closed form."""
        h = _frame(x) @ v
        p = self.penalty
        first = torch.stack([torch.zeros_like(h[0]), torch.zeros_like(h[0]), (1 - p) * h[2]])
        second = torch.stack([h[0], h[1], p * h[2]])
        return coordinates(_times(_times(_unit(first), _unit(second)), _unit(x)))

    def log(self, x: Tensor, y: Tensor) -> Tensor:
        """The shortest geodesic's velocity; of several equally short ones any."""
        h = self._shortest(_times(_unit(y), _inverse(_unit(x)))).to(x)
        velocity: Tensor = torch.linalg.solve(_frame(x), h)
        return velocity

    def transport(self, x: Tensor, v: Tensor, w: Tensor) -> Tensor:
        """In a frame that turns with h about the third axis the equation has constant coefficients.

        h turns at the rate 2(1−p)h₃, so the solution is a matrix exponential.
        """
        frame = _frame(x)
        h = frame @ v
        rate = 2 * (1 - self.penalty) * h[2]
        spin = torch.zeros(3, 3).to(x)
        spin[0, 1], spin[1, 0] = -1.0, 1.0
        gamma = torch.einsum("a,abc->cb", h, self._connection.to(x))
        turned = torch.linalg.matrix_exp(rate * spin) @ torch.linalg.matrix_exp(-(gamma + rate * spin)) @ (frame @ w)
        carried: Tensor = torch.linalg.solve(_frame(self.exp(x, v)), turned)
        return carried

    def sectional(self, x: Tensor, u: Tensor, v: Tensor) -> Tensor:
        """4 − 3p in the plane of the first two directions, p in planes that hold the third."""
        frame, metric = _frame(x), torch.diag(self._weights).to(x)
        a, b = frame @ u, frame @ v
        bent = torch.einsum("i,j,k,l,ijkl->", a, b, b, a, self._curvature.to(x))
        return bent / ((a @ metric @ a) * (b @ metric @ b) - (a @ metric @ b) ** 2)

    def scalar(self, x: Tensor) -> Tensor:
        """2(4 − 3p) + 4p = 8 − 2p."""
        return torch.full_like(x[0], 8 - 2 * self.penalty)

    def product(self, gate: Tensor, x: Tensor) -> Tensor:
        """Multiply a gate's U with x's U: the circuit x with one gate more.

        Args:
            gate: coordinates (3,) of the gate.
            x: coordinates (3,) of the circuit.

        Returns:
            Coordinates (3,) of the product.
        """
        return coordinates(_times(_unit(gate), _unit(x)))

    @property
    def _connection(self) -> Tensor:
        """Γ (a, b, c): ∇_a e_b = Γ_abc e_c in the right-invariant frame, by Koszul's formula."""
        metric = torch.diag(self._weights)
        lowered = _STRUCTURE @ metric  # g([e_a, e_b], e_c)
        mixed = lowered - lowered.permute(2, 0, 1) + lowered.permute(1, 2, 0)
        gamma: Tensor = 0.5 * mixed @ torch.linalg.inv(metric)
        return gamma

    @property
    def _curvature(self) -> Tensor:
        """g(R(e_i, e_j) e_k, e_l)."""
        gamma = self._connection
        twice = torch.einsum("jkm,iml->ijkl", gamma, gamma)
        bracket = torch.einsum("ijm,mkl->ijkl", _STRUCTURE, gamma)
        return (twice - twice.transpose(0, 1) - bracket) @ torch.diag(self._weights)

    def _shortest(self, unit: Tensor) -> Tensor:
        """h (3,), float64, of the shortest geodesic from 1 to a unit quaternion in unit time."""
        q = [float(v) for v in unit.double()]
        across, phase, p = math.hypot(q[1], q[2]), math.atan2(q[3], q[0]), self.penalty
        if across < 1e-12:
            return torch.tensor(self._along_third(phase), dtype=torch.float64)
        least, shortest = math.inf, (0.0, 0.0, 0.0)
        along = math.hypot(q[3], q[0])

        def at(s: Any, lobe: int) -> tuple[Any, Any]:
            """(A, c): the second factor turns by A about an axis whose third component is c."""
            return (lobe + 0.5) * math.pi - np.arctan2(along * np.cos(s), across), along * np.sin(s)

        def miss(s: Any, lobe: int) -> Any:
            a, c = at(s, lobe)
            got = (1 - p) * a * c / p + np.arctan2(np.sin(a) * c, np.cos(a)) - phase
            return got - 2 * math.pi * np.round(got / (2 * math.pi))

        grid = np.linspace(0, 2 * math.pi, SCAN) - 0.0123  # off the symmetric points
        for lobe in range(math.ceil(max(1.0, p)) + 1):
            values = miss(grid, lobe)
            crossed = (values[:-1] * values[1:] <= 0) & (np.abs(values[:-1] - values[1:]) < math.pi)
            for k in np.flatnonzero(crossed):
                s = brentq(miss, grid[k], grid[k + 1], args=(lobe,), xtol=1e-15, rtol=1e-14)
                a, c = (float(v) for v in at(s, lobe))
                squared = a * a * (1 - c * c * (1 - 1 / p))
                if squared < least:
                    least, h3 = squared, a * c / p
                    turn = (1 - p) * h3
                    size = math.copysign(a, math.sin(a)) * math.sqrt(1 - c * c) / across
                    x = size * (math.cos(turn) * q[1] + math.sin(turn) * q[2])
                    y = size * (math.cos(turn) * q[2] - math.sin(turn) * q[1])
                    shortest = (x, y, h3)
        return torch.tensor(shortest, dtype=torch.float64)

    def _along_third(self, phi: float) -> tuple[float, float, float]:
        """To exp(−iφσ₃): straight up to the conjugate point |φ| = π/p, length √(π² − p(π−|φ|)²/(p−1)) beyond it."""
        p, size = self.penalty, abs(phi)
        if p <= 1 or size <= math.pi / p:
            return 0.0, 0.0, phi
        h3 = (math.pi - size) / (p - 1)
        return math.sqrt(max(0.0, math.pi**2 - (p * h3) ** 2)), 0.0, math.copysign(h3, phi)


def _levi_civita() -> Tensor:
    out = torch.zeros(3, 3, 3, dtype=torch.float64)
    for a, b, c in ((0, 1, 2), (1, 2, 0), (2, 0, 1)):
        out[a, b, c], out[b, a, c] = 1.0, -1.0
    return out


_STRUCTURE = -2 * _levi_civita()  # [e_a, e_b] of right-invariant fields with generators −iσ_a


def _series(squared: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """(sin a/a, (1−cos a)/a², (a−sin a)/a³) as smooth functions of a²."""
    small = squared < 1e-2
    a = torch.where(small, torch.ones_like(squared), squared).sqrt()
    exact = (torch.sin(a) / a, (1 - torch.cos(a)) / a**2, (a - torch.sin(a)) / a**3)
    out = []
    for k, value in enumerate(exact, start=1):
        term = torch.ones_like(squared) / math.factorial(k)
        total = term
        for m in range(1, 7):
            term = -term * squared / ((2 * m + k - 1) * (2 * m + k))
            total = total + term
        out.append(torch.where(small, total, value))
    return out[0], out[1], out[2]


def _frame(x: Tensor) -> Tensor:
    """J (3, 3): h = J ẋ, with w = 2x: (sin a/a) 1 + ((1−cos a)/a²)[w]× + ((a−sin a)/a³) w wᵀ, a = |w|."""
    w = 2 * x
    first, second, third = _series((w * w).sum())
    zero = torch.zeros_like(w[0])
    cross = torch.stack([zero, -w[2], w[1], w[2], zero, -w[0], -w[1], w[0], zero]).reshape(3, 3)
    return first * torch.eye(3).to(x) + second * cross + third * torch.outer(w, w)


def _unit(x: Tensor) -> Tensor:
    """U = exp(−i x·σ) = q₀ − i q·σ as (q₀, q)."""
    squared = (x * x).sum()
    first, second, _ = _series(squared)
    return torch.cat([(1 - second * squared).unsqueeze(0), first * x])


def _times(a: Tensor, b: Tensor) -> Tensor:
    """The product of U's as quaternions."""
    real = a[0] * b[0] - (a[1:] * b[1:]).sum()
    return torch.cat([real.unsqueeze(0), a[0] * b[1:] + b[0] * a[1:] + torch.linalg.cross(a[1:], b[1:])])


def _inverse(q: Tensor) -> Tensor:
    return torch.cat([q[:1], -q[1:]])


def coordinates(q: Tensor) -> Tensor:
    """Give the coordinates of a unit quaternion, U = q₀ − i(q₁σ₁ + q₂σ₂ + q₃σ₃).

    Args:
        q: unit quaternion (4,).

    Returns:
        x (3,), |x| ≤ π.
    """
    size = q[1:].norm()
    if float(size) == 0:
        return torch.zeros_like(q[1:]) if float(q[0]) > 0 else torch.tensor([0.0, 0.0, math.pi]).to(q)
    x: Tensor = torch.atan2(size, q[0]) / size * q[1:]
    return x
