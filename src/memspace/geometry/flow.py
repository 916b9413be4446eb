"""Geodesics from a point and a velocity, parallel transport, and the shortest geodesic between two points, for any
metric: the geodesic equation solved by an ODE library, the boundary problem by the string method and shooting.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.func import vmap
from torchdiffeq import odeint

from memspace.geometry.connection import christoffel
from memspace.geometry.manifold import Manifold
from memspace.geometry.string import Steps, String, shortest

__all__ = ["Flow", "Logarithm", "flow", "logarithm", "steps_of", "transport"]


@dataclass(frozen=True)
class Flow:
    """A geodesic at the times asked for.

    Args:
        x: points (T, d), or (T, k, d) for k velocities.
        v: velocities, of the same shape.
        drift: largest relative change of the speed √(vᵀGv), which the exact solution keeps: the solver's error.
    """

    x: Tensor
    v: Tensor
    drift: float


def flow(
    manifold: Manifold,
    x: Tensor,
    v: Tensor,
    times: Sequence[float] = (0.0, 1.0),
    *,
    tolerance: float = 1e-10,
    method: str = "dopri8",
    step: float | None = None,
) -> Flow:
    """Solve ẍ = −Γ(ẋ, ẋ) from x(0) = x, ẋ(0) = v.

    Args:
        manifold: the metric.
        x: the first point (d,).
        v: one velocity (d,), or several (k, d) from the same point, solved together.
        times: from the first one on, increasing or decreasing, T of them.
        tolerance: relative and absolute, of an adaptive ``method``.
        method: name of the solver in torchdiffeq.
        step: of a method of fixed step, for example ``rk4``.

    Returns:
        Points and velocities at the times, with the solver's error.
    """

    def push(a: Tensor, b: Tensor) -> Tensor:
        return -torch.einsum("kij,i,j->k", christoffel(manifold, a), b, b)

    def field(_: Tensor, state: Tensor) -> Tensor:
        a, b = state
        return torch.stack([b, vmap(push)(a, b)])

    at = torch.tensor(list(times), dtype=torch.float64)
    # Steps end at the times asked for: between steps the library interpolates to a lower order than it solves.
    options: dict[str, Any] = {"step_t": at} if step is None else {"step_size": step}
    rows = v.reshape(-1, len(x))
    start = torch.stack([x.expand_as(rows), rows])
    with torch.no_grad():
        out = odeint(field, start, at, rtol=tolerance, atol=tolerance, method=method, options=options)
        speeds = vmap(vmap(manifold.norm))(out[:, 0], out[:, 1])  # (T, k)
    moving = speeds[0] > 0
    drift = float((speeds[:, moving] / speeds[0, moving] - 1).abs().max()) if bool(moving.any()) else 0.0
    shape = (len(at), *v.shape)
    return Flow(out[:, 0].reshape(shape), out[:, 1].reshape(shape), drift)


def transport(manifold: Manifold, x: Tensor, v: Tensor, w: Tensor, *, tolerance: float = 1e-10) -> Tensor:
    """Carry vectors parallel along the geodesic of velocity v for unit time: ẇ = −Γ(ẋ, w).

    Args:
        manifold: the metric.
        x: the first point (d,).
        v: velocity of the geodesic (d,).
        w: one vector (d,) or rows (k, d) at x.
        tolerance: relative and absolute, of the ODE solver.

    Returns:
        The vectors at the geodesic's end, of the shape of w.
    """
    rows = w.reshape(-1, len(x))

    def field(_: Tensor, state: Tensor) -> Tensor:
        gamma = christoffel(manifold, state[0])
        along = torch.einsum("kij,i->kj", gamma, state[1])
        return torch.cat([state[1:2], -(state[1:] @ along.t())])

    start = torch.cat([torch.stack([x, v]), rows])
    at = torch.tensor([0.0, 1.0], dtype=torch.float64)
    with torch.no_grad():
        out = odeint(field, start, at, rtol=tolerance, atol=tolerance, method="dopri8", options={"step_t": at})
    carried: Tensor = out[-1, 2:]
    return carried.reshape(w.shape)


def steps_of(manifold: Manifold) -> Steps:
    """Make the squared step lengths of a string by the metric at the middle of each step.

    Args:
        manifold: the metric.

    Returns:
        Points (S, d) ↦ squared lengths (S−1,), of second order in the step.
    """

    def steps(points: Tensor) -> Tensor:
        between, delta = (points[1:] + points[:-1]) / 2, points[1:] - points[:-1]
        return torch.einsum("si,sij,sj->s", delta, vmap(manifold.metric)(between), delta)

    return steps


@dataclass(frozen=True)
class Logarithm:
    """The shortest geodesic found between two points.

    Args:
        velocity: at the first point, (d,).
        length: √(vᵀGv).
        residual: largest difference of coordinates between where it ends and where it should.
        string: the relaxed string it was started from.
    """

    velocity: Tensor
    length: float
    residual: float
    string: String


def logarithm(
    manifold: Manifold,
    x: Tensor,
    y: Tensor,
    *,
    bends: Sequence[Tensor] = (),
    levels: Sequence[int] = (9, 17),
    tolerance: float = 1e-10,
    newton: int = 12,
) -> Logarithm:
    """Find the velocity at x of the shortest geodesic to y: strings from several starts, then shooting by Newton.

    Args:
        manifold: the metric.
        x: the first point (d,).
        y: the last point (d,).
        bends: offsets (d,) of the middle of further starts, next to the straight one: beyond the cut locus the
            straight start leads to a geodesic that is not shortest.
        levels: points of the string, coarse to fine.
        tolerance: of the ODE solver; the shooting ends when the miss is within ten times that.
        newton: steps of the shooting at most.

    Returns:
        The velocity with its length, and by how much the geodesic misses y.
    """
    share = torch.linspace(0, 1, levels[0], dtype=x.dtype).unsqueeze(1)
    line = x + share * (y - x)
    starts = [line, *(line + torch.sin(torch.pi * share) * bend for bend in bends)]
    metric = manifold.metric((x + y) / 2)
    values, vectors = torch.linalg.eigh(metric)
    root = vectors * values.clamp_min(1e-6 * float(values[-1])).rsqrt() @ vectors.t()
    string = shortest(starts, steps_of(manifold), root=lambda z: z @ root, levels=levels, limit=200, tolerance=1e-10)
    # Velocity at the first point from three points of the string (second order).
    a, b, c = string.points[:3]
    v = (len(string.points) - 1) * (-1.5 * a + 2 * b - 0.5 * c)
    v, miss = _shoot(manifold, x, y, v, tolerance, newton)
    return Logarithm(v, float(manifold.norm(x, v)), miss, string)


def _shoot(manifold: Manifold, x: Tensor, y: Tensor, v: Tensor, tolerance: float, newton: int) -> tuple[Tensor, float]:
    """Newton's method on v ↦ exp(x, v) − y, with derivatives by central differences of the flow, all solved at once."""
    best, velocity, d = float("inf"), v, len(x)
    unit = torch.eye(d, dtype=x.dtype)
    for _ in range(newton):
        step = 1e-4 * max(1.0, float(v.norm()))
        ends = flow(manifold, x, torch.cat([v[None], v + step * unit, v - step * unit]), tolerance=tolerance).x[-1]
        miss = ends[0] - y
        size = float(miss.abs().max())
        if size < best:
            best, velocity = size, v
        if size <= 10 * tolerance:
            break
        slope = ((ends[1 : d + 1] - ends[d + 1 :]) / (2 * step)).t()
        v = v - torch.linalg.lstsq(slope, miss.unsqueeze(1)).solution.squeeze(1)
    return velocity, best
