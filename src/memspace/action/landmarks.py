"""Landmark matching by diffeomorphisms (LDDMM): geodesics from a momentum, and the one that matches two sets of points.

Points q_i move by q̇_i = Σ_j K(q_i, q_j) p_j, K(x, y) = exp(−‖x − y‖²/2s²): the velocity of least kernel norm with those
values. Geodesics are the flow of

    H(q, p) = ½ Σ_ij K(q_i, q_j) ⟨p_i, p_j⟩ = ½‖v‖²_V,

along which H and the total momentum Σ p_i do not change (EPDiff for landmarks; Joshi & Miller 2000; Miller et al.
2006). Matching is an optimal-control problem: least ∫ ½‖v‖²_V dt + ‖q(1) − y‖²/2σ². A residual network with such
layers (``memspace.action.landmark_network``) is its discretisation in time.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torchdiffeq import odeint

__all__ = ["Matched", "Shot", "hamiltonian", "kernel", "match_landmarks", "shoot"]


def kernel(x: Tensor, y: Tensor, scale: float) -> Tensor:
    """Compute K(x_i, y_j) = exp(−‖x_i − y_j‖²/2s²).

    Args:
        x: points (..., n, d).
        y: points (..., m, d).
        scale: s.

    Returns:
        (..., n, m).
    """
    squared = (x.unsqueeze(-2) - y.unsqueeze(-3)).square().sum(-1)
    return torch.exp(squared / (-2 * scale**2))


def hamiltonian(q: Tensor, p: Tensor, scale: float) -> Tensor:
    """Compute ½ Σ K(q_i, q_j)⟨p_i, p_j⟩, the kinetic energy: half the squared speed.

    Args:
        q: points (..., n, d).
        p: momenta (..., n, d).
        scale: s of the kernel.

    Returns:
        (...).
    """
    return (kernel(q, q, scale) * (p @ p.transpose(-1, -2))).sum((-1, -2)) / 2


@dataclass(frozen=True)
class Shot:
    """A geodesic at the times asked for.

    Args:
        q: points (T, n, d).
        p: momenta (T, n, d).
        drift: largest relative change of H, which the exact solution keeps: the solver's error.
        leak: largest change of the total momentum relative to Σ‖p_i‖, another one.
    """

    q: Tensor
    p: Tensor
    drift: float
    leak: float


def shoot(
    q: Tensor,
    p: Tensor,
    times: Sequence[float] = (0.0, 1.0),
    *,
    scale: float,
    tolerance: float = 1e-10,
) -> Shot:
    """Solve q̇_i = Σ_j K_ij p_j, ṗ_i = Σ_j K_ij ⟨p_i, p_j⟩ (q_i − q_j)/s² (Joshi & Miller 2000; Miller et al. 2006).

    Args:
        q: points (n, d), float64.
        p: momenta (n, d), float64.
        times: from the first one on, increasing.
        scale: s of the kernel.
        tolerance: of the ODE solver (Dormand–Prince 8).

    Returns:
        Points and momenta at the times, with the solver's errors.
    """
    at = torch.tensor(list(times), dtype=torch.float64)
    out = _flow(torch.stack([q, p]), at, scale, tolerance)
    with torch.no_grad():
        energy = hamiltonian(out[:, 0], out[:, 1], scale)
        drift = float((energy / energy[0] - 1).abs().max()) if float(energy[0]) > 0 else 0.0
        total = out[:, 1].sum(1)
        size = float(p.norm(dim=-1).sum())
        leak = float((total - total[0]).norm(dim=-1).max()) / size if size > 0 else 0.0
    return Shot(out[:, 0], out[:, 1], drift, leak)


def _flow(start: Tensor, at: Tensor, scale: float, tolerance: float) -> Tensor:
    """(T, 2, ..., n, d) from a state (2, ..., n, d)."""

    def field(_: Tensor, state: Tensor) -> Tensor:
        q, p = state[0], state[1]
        k = kernel(q, q, scale)
        pull = k * (p @ p.transpose(-1, -2)) / scale**2  # (..., n, n)
        force = pull.sum(-1, keepdim=True) * q - pull @ q
        return torch.stack([k @ p, force])

    options: dict[str, Any] = {"step_t": at}
    out: Tensor = odeint(field, start, at, rtol=tolerance, atol=tolerance, method="dopri8", options=options)
    return out


@dataclass(frozen=True)
class Matched:
    """The geodesic that matches.

    Args:
        momentum: at the start, (n, d).
        end: where it ends, (n, d).
        energy: H = ½‖v‖²_V along it.
        cost: energy + ‖q(1) − y‖²/2σ².
        residual: largest entry of p(1) + (q(1) − y)/σ², which is zero at a stationary match.
    """

    momentum: Tensor
    end: Tensor
    energy: float
    cost: float
    residual: float

    @property
    def distance(self) -> float:
        """Length of the geodesic, √(2H)."""
        return math.sqrt(2 * self.energy)


def match_landmarks(
    q: Tensor, y: Tensor, *, scale: float, sigma: float, tolerance: float = 1e-10, newton: int = 20
) -> Matched:
    """Find the least ∫ ½‖v‖²_V dt + ‖q(1) − y‖²/2σ² by shooting: Newton on p(1) + (q(1) − y)/σ² = 0.

    Started from small targets on (continuation), with steps halved until the residual falls.

    Args:
        q: points (n, d).
        y: where they belong, (n, d).
        scale: s of the kernel.
        sigma: σ of the matching term.
        tolerance: of the ODE solver; Newton ends at ten times that.
        newton: steps of Newton's method at most, per target.

    Returns:
        The geodesic, with the residual that says whether it is stationary.
    """
    q, y = q.double(), y.double()
    size = q.numel()
    times = torch.tensor([0.0, 1.0], dtype=torch.float64)

    def misses(rows: Tensor, target: Tensor) -> Tensor:
        p = rows.reshape(-1, *q.shape)
        end = _flow(torch.stack([q.expand_as(p), p]), times, scale, tolerance)[-1]
        return (sigma**2 * end[1] + end[0] - target).reshape(len(p), size)

    p = torch.zeros(size, dtype=torch.float64)
    unit = torch.eye(size, dtype=torch.float64)
    with torch.no_grad():
        for share in (0.25, 0.5, 0.75, 1.0):
            target = q + share * (y - q)
            miss = misses(p, target)[0]
            for _ in range(newton):
                if float(miss.abs().max()) <= 10 * tolerance:
                    break
                step = 1e-4 * max(1.0, float(p.abs().max()))
                ends = misses(torch.cat([p + step * unit, p - step * unit]), target)
                slope = ((ends[:size] - ends[size:]) / (2 * step)).t()
                move = torch.linalg.lstsq(slope, miss.unsqueeze(1)).solution.squeeze(1)
                for _ in range(8):
                    after = misses(p - move, target)[0]
                    if float(after.norm()) < float(miss.norm()):
                        break
                    move = move / 2
                else:
                    break
                p, miss = p - move, after
        momentum = p.reshape(q.shape)
        end = shoot(q, momentum, scale=scale, tolerance=tolerance).q[-1]
        energy = float(hamiltonian(q, momentum, scale))
    cost = energy + float((end - y).square().sum()) / (2 * sigma**2)
    return Matched(momentum, end, energy, cost, float(miss.abs().max()) / sigma**2)
