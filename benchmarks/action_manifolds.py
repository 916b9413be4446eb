"""Manifolds with known answers: numeric length, geodesic, transport and curvature against closed forms."""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable

import torch
from torch import Tensor

from benchmarks.table import Row, at_most
from memspace.geometry.connection import scalar_curvature, sectional_curvature
from memspace.geometry.flow import flow, logarithm, transport
from memspace.geometry.manifold import KnownManifold
from memspace.geometry.manifolds.categorical import Simplex
from memspace.geometry.manifolds.flat import Bernoullis, LinearGaussian
from memspace.geometry.manifolds.gaussian import DiagonalNormal, Normal
from memspace.geometry.manifolds.su2 import SU2
from memspace.geometry.nielsen import growth

PART = "manifolds"
GOAL = 1e-6
CUT = ((4.0, 0.5), (4.0, 1.5), (4.0, 3.0), (1.5, 2.5))  # penalty and angle; all but the first beyond π/p


def _probabilities(classes: int) -> Callable[[torch.Generator], Tensor]:
    def draw(g: torch.Generator) -> Tensor:
        p = torch.rand(classes, generator=g, dtype=torch.float64) + 0.2
        return (p / p.sum())[:-1]

    return draw


def _normals(n: int) -> Callable[[torch.Generator], Tensor]:
    def draw(g: torch.Generator) -> Tensor:
        mean = torch.randn(n, generator=g, dtype=torch.float64)
        return torch.stack([mean, torch.rand(n, generator=g, dtype=torch.float64) + 0.5], 1).flatten()

    return draw


def _uniform(size: int, low: float, high: float) -> Callable[[torch.Generator], Tensor]:
    return lambda g: low + (high - low) * torch.rand(size, generator=g, dtype=torch.float64)


def _cases() -> dict[str, tuple[KnownManifold, Callable[[torch.Generator], Tensor]]]:
    design = torch.randn(9, 3, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    return {
        "simplex, 4 classes": (Simplex(4), _probabilities(4)),
        "normal": (Normal(), _normals(1)),
        "two independent normals": (DiagonalNormal(2), _normals(2)),
        "three Bernoulli variables": (Bernoullis(3), _uniform(3, 0.1, 0.9)),
        "linear-Gaussian": (LinearGaussian(design, 0.5), _uniform(3, -2, 2)),
        "SU(2), penalty 4": (SU2(4.0), _uniform(3, -0.4, 0.4)),
    }


def rows(arguments: argparse.Namespace) -> list[Row]:
    out = []
    pairs = 1 if arguments.small else 2
    for name, (manifold, draw) in _cases().items():
        g = torch.Generator().manual_seed(7)
        worst = {"length": 0.0, "velocity": 0.0, "geodesic": 0.0, "transport": 0.0, "curvature": 0.0}
        for _ in range(pairs):
            for what, error in _errors(manifold, draw(g), draw(g), g).items():
                worst[what] = max(worst[what], error)
        for what, error in worst.items():
            out.append(at_most(PART, f"{name}: {what}", [error], GOAL, f"largest relative error of {pairs} pairs"))
    return out + _cut_locus() + _orders() + _circuits(arguments)


def _errors(m: KnownManifold, x: Tensor, y: Tensor, g: torch.Generator) -> dict[str, float]:
    v, size = m.log(x, y), float(m.distance(x, y))
    found = logarithm(m, x, y)
    path = flow(m, x, v, (0.0, 0.5, 1.0)).x
    rows = torch.randn(2, m.size, generator=g, dtype=torch.float64)
    closed = torch.stack([m.transport(x, v, w) for w in rows])
    moved = transport(m, x, v, rows) - closed
    u, w = torch.randn(2, m.size, generator=g, dtype=torch.float64)
    bent = [(float(sectional_curvature(m, x, u, w)), float(m.sectional(x, u, w)))]
    bent.append((float(scalar_curvature(m, x)), float(m.scalar(x))))
    return {
        "length": abs(found.length / size - 1),
        "velocity": float(m.norm(x, found.velocity - v)) / size,
        "geodesic": float(m.norm(x, path[1] - m.exp(x, 0.5 * v)) + m.norm(y, path[2] - y)) / size,
        "transport": max(float(m.norm(y, d) / m.norm(y, c)) for d, c in zip(moved, closed, strict=True)),
        "curvature": max(abs(a - b) / max(1.0, abs(b)) for a, b in bent),
    }


def _cut_locus() -> list[Row]:
    out = []
    for penalty, phi in CUT:
        m = SU2(penalty)
        end = torch.tensor([0.0, 0.0, phi / 2], dtype=torch.float64)
        closed = float(m.distance(-end, end))
        bend = torch.tensor([0.8, 0.0, 0.0], dtype=torch.float64)
        found = logarithm(m, -end, end, bends=(bend,))
        what = f"SU(2), penalty {penalty:g}: distance at angle {phi:g}"
        detail = f"closed form {closed:.4f}, found {found.length:.4f}, straight {penalty**0.5 * phi:.4f}"
        out.append(at_most(PART, what, [abs(found.length / closed - 1)], GOAL, detail))
    return out


def _orders() -> list[Row]:
    m = Normal()
    x, y = torch.tensor([[0.0, 1.0], [1.5, 0.6]], dtype=torch.float64)
    v, exact = m.log(x, y), float(m.distance(x, y))
    ends = [float((flow(m, x, v, method="rk4", step=1 / k).x[-1] - y).norm()) for k in (8, 16, 32)]
    strings = [abs(logarithm(m, x, y, levels=(k,), newton=0).string.length - exact) for k in (9, 17, 33)]
    out = []
    for name, errors, order in (
        ("Runge–Kutta of the geodesic equation", ends, 4),
        ("string, step lengths by the metric at their middle", strings, 2),
    ):
        found = math.log2(errors[1] / errors[2])
        detail = "errors " + ", ".join(f"{e:.1e}" for e in errors) + " at steps halved"
        out.append(
            Row(
                PART,
                f"order of convergence: {name}",
                f"{order} ± 0.2",
                found,
                None,
                None,
                abs(found - order) <= 0.2,
                detail,
            )
        )
    return out


def _circuits(arguments: argparse.Namespace) -> list[Row]:
    found = growth(4.0, 30 if arguments.small else 80, circuits=6 if arguments.small else 24)
    late = found.least[-len(found.least) // 4 :]
    half = int((found.least < found.plateau / 2).sum())
    detail = f"grows to half of it in {half} gates of 0.25; circuits spent {float(found.spent[-1]):.3g}"
    share = float(late.mean()) / found.plateau
    return [
        Row(
            PART,
            "SU(2), penalty 4: complexity of long random circuits over that of a random gate",
            "0.9 to 1.1",
            share,
            None,
            None,
            0.9 <= share <= 1.1,
            detail,
        )
    ]
