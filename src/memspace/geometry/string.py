"""The string method: a path between two fixed ends, relaxed until its energy is least.

A string is S points; its energy (S−1)·Σ d²(x_k, x_{k+1}) is the square of its length where the points are evenly
spaced, and more where they are not: minimising it finds a geodesic at constant speed. The Hessian is close to
2·(L ⊗ F) with L the second difference over the points and F the metric, so L-BFGS runs in coordinates z with
x = start + (L ⊗ F)^{-½} z. The same solver serves manifolds with known geodesics and networks.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from memspace.geometry.descent import descend

__all__ = ["Steps", "String", "midpoints", "relax", "respaced", "shortest"]

Steps = Callable[[Tensor], Tensor]  # points (S, d) → squared lengths of the S−1 steps, differentiable
Root = Callable[[Tensor], Tensor]  # rows (k, d) → F^{-½} of each


@dataclass(frozen=True)
class String:
    """A relaxed path.

    Args:
        points: (S, d), the ends included.
        squared: squared length of each step, (S−1,).
        evaluations: of the energy and its gradient, over all stages.
        remaining: share of the energy that another Newton step is expected to gain.
        converged: the energy stopped falling before the limit of evaluations was reached.
        visited: number of points in all evaluations together.
        chosen: place of the start it came from.
    """

    points: Tensor
    squared: Tensor
    evaluations: int = 0
    remaining: float = 0.0
    converged: bool = True
    visited: int = 0
    chosen: int = 0

    @property
    def length(self) -> float:
        """Σ d."""
        return float(self.squared.sqrt().sum())

    @property
    def energy(self) -> float:
        """(S−1) Σ d² ≥ length², equal at constant speed."""
        return len(self.squared) * float(self.squared.sum())

    @property
    def uneven(self) -> float:
        """√energy/length − 1: 0 at constant speed."""
        return self.energy**0.5 / self.length - 1 if self.length else 0.0


def _smoother(count: int) -> Tensor:
    """L^{-½} for ``count`` inner points, L = (S−1)·tridiag(−1, 2, −1), S−1 = count + 1 steps."""
    k = torch.arange(1, count + 1, dtype=torch.float64)
    basis = torch.sin(torch.outer(k, k) * torch.pi / (count + 1)) * (2 / (count + 1)) ** 0.5
    values = (count + 1) * (2 - 2 * torch.cos(k * torch.pi / (count + 1)))
    out: Tensor = (basis * values.rsqrt()) @ basis
    return out


def relax(
    start: Tensor,
    steps: Steps,
    *,
    root: Root | None = None,
    limit: int = 200,
    tolerance: float = 1e-5,
    report: Callable[[float], None] | None = None,
) -> String:
    """Minimise the energy over the inner points; the ends stay.

    Args:
        start: points (S, d).
        steps: the squared step lengths of points.
        root: F^{-½} on rows, F near the metric along the path.
        limit: evaluations at most.
        tolerance: relative fall of the energy by a chunk of evaluations at which it ends.
        report: called with the energy after every chunk.

    Returns:
        The path of least energy met.
    """
    first, last, count = start[:1], start[-1:], len(start) - 2
    if count < 1:
        return String(start, steps(start).detach())
    smooth = _smoother(count).to(start.device)

    def precondition(z: Tensor) -> Tensor:
        z = smooth @ z
        return z if root is None else root(z)

    def energy(inner: Tensor) -> Tensor:
        return (count + 1) * steps(torch.cat([first, inner, last])).sum()

    minimum = descend(energy, start[1:-1], root=precondition, limit=limit, tolerance=tolerance, report=report)
    points = torch.cat([first, minimum.x, last])
    with torch.no_grad():
        squared = steps(points)
    return String(
        points, squared, minimum.evaluations, minimum.remaining, minimum.converged, minimum.evaluations * len(points)
    )


def midpoints(points: Tensor, times: int = 1) -> Tensor:
    """Cut every side of a polygon into 2^times equal parts.

    Args:
        points: corners (S, d).
        times: number of halvings.

    Returns:
        ((S−1)·2^times + 1, d).
    """
    for _ in range(times):
        between = torch.stack([points[:-1], (points[:-1] + points[1:]) / 2], 1).flatten(0, 1)
        points = torch.cat([between, points[-1:]])
    return points


def respaced(points: Tensor, squared: Tensor, count: int) -> Tensor:
    """Place points on a polygon, evenly spaced by the steps' lengths.

    Args:
        points: corners (S, d).
        squared: squared lengths of the sides, (S−1,).
        count: number of points.

    Returns:
        (count, d), the ends as they were.
    """
    along = torch.cat([torch.zeros(1).to(squared), squared.sqrt().cumsum(0)])
    if float(along[-1]) == 0:
        along = torch.arange(len(points)).to(squared)
    at = torch.linspace(0, 1, count).to(squared) * along[-1]
    right = torch.searchsorted(along, at, right=False).clamp(1, len(points) - 1)
    share = (at - along[right - 1]) / (along[right] - along[right - 1]).clamp_min(1e-300)
    weight = share.clamp(0, 1).unsqueeze(1).to(points)
    out = points[right - 1] * (1 - weight) + points[right] * weight
    out[0], out[-1] = points[0], points[-1]
    return out


def shortest(
    starts: Sequence[Tensor],
    steps: Steps,
    *,
    root: Root | None = None,
    levels: Sequence[int] = (9, 17, 33),
    limit: int = 200,
    tolerance: float = 1e-5,
    report: Callable[[float], None] | None = None,
) -> String:
    """Find the best string from several starts.

    All are relaxed at the coarsest level, the best one goes on to the finer ones. Several starts matter where geodesics
    stop being shortest (beyond the cut locus): the straight start is then a saddle of the energy that no descent leaves
    by itself.

    Args:
        starts: polygons with common ends.
        steps: the squared step lengths of points.
        root: F^{-½} on rows, F near the metric along the path.
        levels: number of points at each level, coarse to fine.
        limit: evaluations at most, per level and start.
        tolerance: relative fall of the energy by a chunk of evaluations at which a level ends.
        report: called with the energy after every chunk.

    Returns:
        The string at the finest level; its counts are those of all levels.
    """
    relaxed: list[String] = []
    for start in starts:
        with torch.no_grad():
            spaced = respaced(start, steps(start), levels[0])
        relaxed.append(relax(spaced, steps, root=root, limit=limit, tolerance=tolerance, report=report))
    chosen = min(range(len(relaxed)), key=lambda k: relaxed[k].energy)
    best = relaxed[chosen]
    for _, count in itertools.pairwise(levels):
        spaced = respaced(best.points, best.squared, count)
        best = relax(spaced, steps, root=root, limit=limit, tolerance=tolerance, report=report)
        relaxed.append(best)
    used, visited = sum(s.evaluations for s in relaxed), sum(s.visited for s in relaxed)
    return replace(best, evaluations=used, visited=visited, chosen=chosen)
