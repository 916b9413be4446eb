"""The five factors of dSprites (Matthey et al. 2017) at full resolution, drawn here: 737,280 combinations of 64 × 64.

Where this differs from the published file:

- Edges are one pixel wide and soft, so that images change smoothly between levels; there they are black or white.
- Orientation takes 40 steps of 9° and so returns after 40 levels. The file takes 40 values from 0 to 2π, both ends
  included, so that its last is its first again.
- A square turned by 90° and an ellipse turned by 180° are themselves, which 9° divides. ``alike`` names the first
  combination with the same image; 430,080 images differ.
- The heart is a square on its tip with two half discs on it; sizes are near those of the file, not equal.
"""

from __future__ import annotations

import math
from pathlib import Path

import torch
from torch import Tensor

from memspace.task.worlds.factor_world import FactorWorld, WorldFactor
from memspace.task.worlds.registry import register_world

__all__ = ["FACTORS", "KINDS", "dsprites_world", "render"]

KINDS = ("square", "ellipse", "heart")
TURN = 40  # levels of a full turn
TURNS = (10, 20, 40)  # levels after which a square, an ellipse, a heart is itself again
FACTORS = (
    WorldFactor("shape", 3, ordered=False),
    WorldFactor("scale", 6),
    WorldFactor("orientation", TURN, period=TURN),
    WorldFactor("x", 32),
    WorldFactor("y", 32),
)
_SIDE = 64
_RADIUS = 14.0  # pixels that the largest shapes reach from their centre: none is cut off at a border
_STEEP = 4.0  # a logistic edge of slope one per pixel


def render(levels: Tensor) -> Tensor:
    """Draw images from factor levels: logistic(4 d), with d the distance in pixels inside of the outline.

    Args:
        levels: (B, 5) shape (whole), scale, orientation, x and y.

    Returns:
        (B, 1, 64, 64) in [0, 1].
    """
    levels = levels.to(torch.float64)
    size = (_RADIUS * (0.5 + 0.1 * levels[:, 1]))[:, None, None]
    angle = (levels[:, 2] * (2 * math.pi / TURN))[:, None, None]
    axis = torch.arange(_SIDE, dtype=torch.float64) + 0.5
    first = (_SIDE - (FACTORS[3].size - 1)) / 2  # one pixel a level, centred
    dx = axis[None, None, :] - (first + levels[:, 3])[:, None, None]
    dy = axis[None, :, None] - (first + levels[:, 4])[:, None, None]
    u, v = (angle.cos() * dx + angle.sin() * dy) / size, (angle.cos() * dy - angle.sin() * dx) / size
    images = torch.empty(len(levels), _SIDE, _SIDE, dtype=torch.float64)
    for kind, inside in enumerate((_square, _ellipse, _heart)):
        rows = levels[:, 0] == kind
        images[rows] = torch.sigmoid(_STEEP * size[rows] * inside(u[rows], v[rows]))
    return images.unsqueeze(1)


def _square(u: Tensor, v: Tensor) -> Tensor:
    return 0.74 - torch.maximum(u.abs(), v.abs())


def _ellipse(u: Tensor, v: Tensor) -> Tensor:
    """Measure the distance to first order: (1 − F) / |∇F| with F the norm in which the ellipse is the unit circle."""
    a, b = 1.0, 0.5
    norm = torch.sqrt((u / a) ** 2 + (v / b) ** 2 + 1e-12)
    return (1 - norm) * norm / torch.sqrt((u / a**2) ** 2 + (v / b**2) ** 2 + 1e-12)


def _heart(u: Tensor, v: Tensor) -> Tensor:
    tip = 0.68
    square = (tip - u.abs() - v.abs()) / math.sqrt(2)
    disc = tip / math.sqrt(2) - torch.sqrt((u.abs() - tip / 2) ** 2 + (v + tip / 2) ** 2)
    return torch.maximum(square, disc)


def _alike(levels: Tensor) -> Tensor:
    first = levels.clone()
    first[:, 2] %= torch.tensor(TURNS)[levels[:, 0]]
    return first


@register_world("dsprites")
def dsprites_world(root: Path | None) -> FactorWorld:
    """Make the world of dSprites: 3 shapes, 6 scales, 40 orientations of a full turn, 32 × 32 positions.

    Args:
        root: not used: the images are rendered.

    Returns:
        The world, 64 × 64 pixels in grey.
    """
    data = "sprites rendered from the five factors of dSprites, 64 × 64"
    return FactorWorld("dsprites", FACTORS, (1, _SIDE, _SIDE), render, alike=_alike, data=data)
