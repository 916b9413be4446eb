"""Rendered shapes with five known factors (those of dSprites), drawn with soft edges so that factors have slopes."""

from __future__ import annotations

import math
from pathlib import Path

import torch
from torch import Tensor

from memspace.task.worlds.factor_world import FactorWorld, WorldFactor
from memspace.task.worlds.registry import register_world

__all__ = ["NAMES", "SIZES", "render", "shapes_world"]

NAMES = ("shape", "scale", "orientation", "x", "y")
SIZES = (3, 4, 8, 8, 8)
_SIDE = 32


def render(levels: Tensor) -> Tensor:
    """Draw images from factor levels, continuous in all but the shape.

    Orientation covers a quarter turn, so that no two levels of any shape look alike.

    Args:
        levels: (B, 5) shape, scale, orientation, x and y.

    Returns:
        (B, 1, 32, 32) float32 in [0, 1].
    """
    return _draw(levels.to(torch.float64)).float()


def _draw(levels: Tensor) -> Tensor:
    size = 4.0 + 1.2 * levels[:, 1]
    angle = levels[:, 2] * (math.pi / 2 / SIZES[2])
    cx, cy = (8.0 + levels[:, k] * (16.0 / (SIZES[k] - 1)) for k in (3, 4))
    axis = torch.arange(_SIDE, dtype=torch.float64) + 0.5
    py, px = torch.meshgrid(axis, axis, indexing="ij")
    dx, dy = px[None] - cx[:, None, None], py[None] - cy[:, None, None]
    c, s = angle.cos()[:, None, None], angle.sin()[:, None, None]
    u, v = (c * dx + s * dy) / size[:, None, None], (-s * dx + c * dy) / size[:, None, None]
    square = 0.8 - torch.maximum(u.abs(), v.abs())
    ellipse = 1.0 - torch.sqrt(u**2 + (1.8 * v) ** 2 + 1e-12)
    w = -v + 0.15
    heart = 0.35 * (1.0 - ((u**2 + w**2 - 0.7) * torch.sqrt(u**2 + w**2 + 0.05) * 1.6 - u**2 * w * 1.4 + 0.55))
    inside = torch.stack([square, ellipse, heart])
    kind = levels[:, 0].round().long().clamp(0, 2)
    chosen = inside[kind, torch.arange(len(levels))]
    return torch.sigmoid(chosen * size[:, None, None] * 2.5).unsqueeze(1)


@register_world("shapes")
def shapes_world(root: Path | None) -> FactorWorld:
    """Make the small world of soft shapes: 6,144 combinations, no two images alike.

    Args:
        root: not used: the images are rendered.

    Returns:
        The world, 32 × 32 pixels in grey.
    """
    factors = tuple(WorldFactor(n, s, ordered=n != "shape") for n, s in zip(NAMES, SIZES, strict=True))
    return FactorWorld("shapes", factors, (1, _SIDE, _SIDE), _draw, data="rendered shapes with soft edges, 32 × 32")
