"""Angles, frames, clouds and independent components on the same surfaces of two factors: what each sees."""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from benchmarks.table import Row
from memspace.geometry.factor_loop import loop_holonomy, rectangle
from memspace.geometry.independent_components import independent_components, volume_density
from memspace.geometry.latent import LatentManifold
from memspace.geometry.representation_holonomy import representation_holonomy
from memspace.measures.factor_metric import cosines

__all__ = ["rows"]

PART = "rivals"
AT = torch.tensor([0.7, 0.4], dtype=torch.float64)
SIDE = 0.5
NOUGHT = 1e-7
CORRELATION = 0.6
MEASURES = ("|cos| of the factors", "turn of frames, radians", "score of clouds", "mixing of components")


@dataclass(frozen=True)
class Surface:
    """A representation of two factors, their law, and the four measures where known (None: above 0)."""

    network: Callable[[Tensor], Tensor]
    law: Callable[[Tensor], Tensor]
    known: Sequence[float | None]


def rows(arguments: argparse.Namespace) -> list[Row]:
    out = []
    for name, surface in _surfaces(list(arguments.seeds)).items():
        for measure, value, want in zip(MEASURES, _measured(surface), surface.known, strict=True):
            goal = "> 1e-4" if want is None else f"= {want:.4g}"
            met = value > 1e-4 if want is None else abs(value - want) <= max(NOUGHT, 2e-3 * want)
            out.append(Row(PART, f"{name}: {measure}", goal, value, None, None, met))
    return out


def _measured(surface: Surface) -> tuple[float, float, float, float]:
    manifold = LatentManifold(surface.network, 2)
    angle = float(cosines(manifold.metric(AT).detach()[None])[0, 0, 1])
    turn = loop_holonomy(surface.network, _plain, rectangle(AT, 0, 1, SIDE, 16), (0, 1), step=1e-3).loop.turn
    pool = AT + torch.randn(300, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64) / 2
    at = torch.arange(12, dtype=torch.float64) * math.pi / 6
    loop = AT + SIDE / 2 * torch.stack([at.cos(), at.sin()], 1)
    clouds = representation_holonomy(surface.network, loop, pool, neighbours=40).score
    components = independent_components(manifold, volume_density(manifold, surface.law), AT)
    return angle, turn, clouds, components.mixing


def _surfaces(seeds: Sequence[int]) -> dict[str, Surface]:
    a, b = AT.tolist()
    solid = SIDE * (math.cos(a - SIDE / 2) - math.cos(a + SIDE / 2))
    polar = math.sqrt(2 * b**2 / ((1 + a) ** 2 + (3 + a) ** 2 + 2 * b**2))
    correlated = CORRELATION / math.sqrt(1 + CORRELATION**2)
    out = {
        "product of two curves": Surface(_curves, _normal, (0, 0, None, 0)),
        "linear layer at a slant": Surface(_slant, _normal, (0.6, 0, 0, 0)),
        "identity, correlated factors": Surface(_flat, _correlated, (0, 0, 0, correlated)),
        "sphere, uniform factors": Surface(_sphere, _uniform, (0, solid, None, 0)),
        "plane in polar coordinates": Surface(_polar, _normal, (0, 0, None, polar)),
    }
    for seed in seeds:
        torch.manual_seed(seed)
        network = nn.Sequential(nn.Linear(2, 20), nn.Tanh(), nn.Linear(20, 8)).double()
        out[f"tanh network {seed}"] = Surface(network, _normal, (None,) * 4)
    return out


def _plain(levels: Tensor) -> Tensor:
    return levels


def _normal(x: Tensor) -> Tensor:
    return -0.5 * x.square().sum()


def _uniform(x: Tensor) -> Tensor:
    return 0 * x.sum()


def _correlated(x: Tensor) -> Tensor:
    return -0.5 * (x.square().sum() - 2 * CORRELATION * x.prod()) / (1 - CORRELATION**2)


def _slant(x: Tensor) -> Tensor:
    return torch.stack([x[:, 0] + 0.6 * x[:, 1], 0.8 * x[:, 1], 0 * x[:, 0]], 1)


def _flat(x: Tensor) -> Tensor:
    return torch.stack([x[:, 0], x[:, 1], 0 * x[:, 0]], 1)


def _curves(x: Tensor) -> Tensor:
    a, b = x[:, 0], x[:, 1]
    return torch.stack([a.cos(), a.sin(), 2 * b, b.sin()], 1)


def _sphere(x: Tensor) -> Tensor:
    a, b = x[:, 0], x[:, 1]
    return torch.stack([a.sin() * b.cos(), a.sin() * b.sin(), a.cos()], 1)


def _polar(x: Tensor) -> Tensor:
    a, b = x[:, 0], x[:, 1]
    return torch.stack([a.exp() * b.cos(), a.exp() * b.sin(), 0 * a], 1)
