"""A room with an object in it, in the manner of 3D Shapes (Burgess & Kim 2018): six factors, rendered here in colour.

One ray a pixel meets the floor or a wall, which are planes, and comes near the object, a convex body that is given by
its signed distance. Along a ray the signed distance of a convex body is convex. So its least value is where a section
search finds it, and the point where the ray enters lies before, where bisection finds it. The least distance in pixels
gives a soft outline; edges of the room are soft as well. Images are therefore continuous in all factors but the shape.

Shading is by the angle between surface and light, with a soft shadow where the object meets the floor. Floor, walls
and object have hues on a circle. The camera turns around the object by 30° to both sides.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from memspace.task.worlds.factor_world import FactorWorld, WorldFactor
from memspace.task.worlds.registry import register_world

__all__ = ["FACTORS", "KINDS", "render", "scenes_world"]

KINDS = ("cube", "cylinder", "sphere", "capsule")
FACTORS = (
    WorldFactor("floor hue", 10, period=10),
    WorldFactor("wall hue", 10, period=10),
    WorldFactor("object hue", 10, period=10),
    WorldFactor("scale", 8),
    WorldFactor("shape", 4, ordered=False),
    WorldFactor("orientation", 15),
)
_SIDE = 64
_ROOM = 5.0  # from the centre to each wall
_EYE, _HEIGHT, _AIM = 4.8, 2.4, 0.7  # distance and height of the camera, and the height it looks at
_OPENING = math.tan(math.radians(27.5))  # of half the field of view
_PIXEL = 2 * _OPENING / _SIDE  # width of a pixel at depth 1
_LIGHT = (-0.4, -0.6, 0.7)
_EDGE = 500.0  # sharpness of the room's edges, by inverse depth: about a pixel
_STEEP = 4.0  # a logistic outline of slope one per pixel
_MARGIN = 4.0  # pixels around the object in which its outline is still seen
_SEARCH, _BISECT = 30, 22  # steps that come to well below a thousandth of a pixel
_GOLDEN = (math.sqrt(5) - 1) / 2


def _length(*parts: Tensor) -> Tensor:
    """Return the Euclidean length, with a slope at zero."""
    square = parts[0] * parts[0]
    for part in parts[1:]:
        square = square + part * part
    return torch.sqrt(square + 1e-14)


def _cube(p: Tensor) -> Tensor:
    x, y, z = (p.abs() - 0.62).unbind(-1)
    return _length(x.clamp(min=0), y.clamp(min=0), z.clamp(min=0)) + p.abs().amax(-1).sub(0.62).clamp(max=0) - 0.06


def _cylinder(p: Tensor) -> Tensor:
    radial, axial = _length(p[..., 0], p[..., 1]) - 0.6, p[..., 2].abs() - 0.72
    return _length(radial.clamp(min=0), axial.clamp(min=0)) + torch.maximum(radial, axial).clamp(max=0) - 0.06


def _sphere(p: Tensor) -> Tensor:
    return _length(*p.unbind(-1)) - 0.82


def _capsule(p: Tensor) -> Tensor:
    x, y, z = p.unbind(-1)
    return _length(x, y, z - z.clamp(-0.55, 0.55)) - 0.55


@dataclass(frozen=True)
class _Body:
    """A body of scale 1.

    Args:
        distance: signed, of points (..., 3) around its centre.
        centre: height of the centre above the floor.
        reach: the furthest it goes from its centre.
    """

    distance: Callable[[Tensor], Tensor]
    centre: float
    reach: float


_BODIES = (
    _Body(_cube, 0.68, 1.14),
    _Body(_cylinder, 0.78, 1.01),
    _Body(_sphere, 0.82, 0.82),
    _Body(_capsule, 1.1, 1.1),
)


def render(levels: Tensor) -> Tensor:
    """Draw images from factor levels.

    Args:
        levels: (B, 6) hues of floor, walls and object, scale, shape (whole) and orientation.

    Returns:
        (B, 3, 64, 64) in [0, 1].
    """
    levels = levels.to(torch.float64)
    eye, rays = _camera(torch.deg2rad((levels[:, 5] - 7) * (30 / 7)))
    scale = 0.75 + levels[:, 3] / 14
    images = torch.empty(len(levels), _SIDE * _SIDE, 3, dtype=torch.float64)
    for kind, body in enumerate(_BODIES):
        rows = torch.nonzero(levels[:, 4] == kind).flatten()
        if len(rows):
            hues = [_colour(levels[rows, k]) for k in range(3)]
            images[rows] = _draw(body, eye[rows], rays[rows], scale[rows], hues)
    return images.clamp(0, 1).transpose(1, 2).reshape(-1, 3, _SIDE, _SIDE)


def _colour(hue: Tensor) -> Tensor:
    """Return red, green and blue (B, 3) of hues on a circle of ten levels."""
    thirds = torch.arange(3, dtype=torch.float64) / 3
    return 0.55 + 0.45 * torch.cos(2 * math.pi * (hue[:, None] / 10 - thirds))


def _camera(angle: Tensor) -> tuple[Tensor, Tensor]:
    """Return where cameras stand (B, 3), and rays (B, pixels, 3) of depth 1."""
    zero, one = torch.zeros_like(angle), torch.ones_like(angle)
    outward = torch.stack([angle.sin(), -angle.cos(), zero], 1)
    eye = _EYE * outward + _HEIGHT * torch.stack([zero, zero, one], 1)
    slope = math.hypot(_EYE, _HEIGHT - _AIM)
    forward = (-_EYE * outward + (_AIM - _HEIGHT) * torch.stack([zero, zero, one], 1)) / slope
    right = torch.stack([angle.cos(), angle.sin(), zero], 1)
    up = torch.linalg.cross(right, forward)
    axis = ((torch.arange(_SIDE, dtype=torch.float64) + 0.5) / _SIDE * 2 - 1) * _OPENING
    down, across = torch.meshgrid(axis, axis, indexing="ij")
    across, down = across.flatten()[None, :, None], down.flatten()[None, :, None]
    return eye, forward[:, None] + across * right[:, None] - down * up[:, None]


def _draw(body: _Body, eye: Tensor, rays: Tensor, scale: Tensor, hues: list[Tensor]) -> Tensor:
    """Return colours (B, pixels, 3) of scenes with objects of one shape."""
    light = torch.tensor(_LIGHT, dtype=torch.float64)
    light = light / light.norm()
    size = scale[:, None].expand(rays.shape[:2])
    origin = eye[:, None].expand_as(rays)
    middle = torch.tensor([0.0, 0.0, body.centre], dtype=torch.float64)

    def scaled(points: Tensor, sizes: Tensor) -> Tensor:
        return points / sizes[..., None] - middle

    colours = _room(eye, rays, light, hues[0], hues[1], lambda points: body.distance(scaled(points, size)))
    # Only rays that come near a ball around the object are followed.
    towards = middle * size[..., None] - origin
    square = (rays * rays).sum(-1)
    nearest = (towards * rays).sum(-1) / square
    aside = (towards - nearest[..., None] * rays).norm(dim=-1)
    near = aside < body.reach * size + _MARGIN * _PIXEL * nearest
    start, ray, sizes, middle_depth = origin[near], rays[near], size[near], nearest[near]
    half = body.reach * sizes / square[near].sqrt()

    def along(depth: Tensor) -> Tensor:
        return sizes * body.distance(scaled(start + depth[:, None] * ray, sizes))

    closest, least = _least(along, middle_depth - half, middle_depth + half)
    entry = _entry(along, middle_depth - half, closest)
    points = start + torch.where(least < 0, entry, closest)[:, None] * ray
    shade = _shade(_normal(body, scaled(points, sizes)) @ light)
    surface = hues[2][:, None].expand_as(rays)[near] * shade[:, None]
    cover = torch.sigmoid(-_STEEP * least / (_PIXEL * closest))[:, None]
    colours[near] = cover * surface + (1 - cover) * colours[near]
    return colours


def _room(
    eye: Tensor, rays: Tensor, light: Tensor, floor: Tensor, wall: Tensor, distance: Callable[[Tensor], Tensor]
) -> Tensor:
    """Return colours (B, pixels, 3) of the room alone.

    The inverse depth of a plane is linear over the image, and a ray meets the plane of the greatest one: a softmax
    draws all edges softly.
    """
    x, y, z = rays.unbind(-1)
    ex, ey, ez = (c[:, None] for c in eye.unbind(1))
    inverse = torch.stack([-z / ez, x / (_ROOM - ex), -x / (_ROOM + ex), y / (_ROOM - ey), -y / (_ROOM + ey)], -1)
    weights = torch.softmax(_EDGE * inverse, -1)
    inward = torch.tensor([[0, 0, 1], [-1, 0, 0], [1, 0, 0], [0, -1, 0], [0, 1, 0]], dtype=torch.float64)
    shades = _shade(inward @ light)
    points = eye[:, None] + rays / inverse[..., :1].clamp(min=0.05)
    shadow = 1 - 0.5 * torch.exp(-distance(points).clamp(min=0) / 0.3)
    ground = (weights[..., 0] * shadow * shades[0])[..., None] * floor[:, None]
    return ground + (weights[..., 1:] @ shades[1:])[..., None] * wall[:, None]


def _shade(cosine: Tensor) -> Tensor:
    """Return the brightness of a surface; it falls off to the side away from the light, which is not black."""
    return 0.3 + 0.35 * (1 + cosine)


def _least(distance: Callable[[Tensor], Tensor], low: Tensor, high: Tensor) -> tuple[Tensor, Tensor]:
    """Return where a convex function is least between two ends, by golden-section search, and its value there."""
    left, right = high - _GOLDEN * (high - low), low + _GOLDEN * (high - low)
    at_left, at_right = distance(left), distance(right)
    for _ in range(_SEARCH):
        lower = at_left < at_right
        low, high = torch.where(lower, low, left), torch.where(lower, right, high)
        point = torch.where(lower, high - _GOLDEN * (high - low), low + _GOLDEN * (high - low))
        value = distance(point)
        left, right = torch.where(lower, point, right), torch.where(lower, left, point)
        at_left, at_right = torch.where(lower, value, at_right), torch.where(lower, at_left, value)
    middle = (low + high) / 2
    return middle, distance(middle)


def _entry(distance: Callable[[Tensor], Tensor], low: Tensor, high: Tensor) -> Tensor:
    """Return where a falling function crosses zero between two ends; the upper end where it does not."""
    for _ in range(_BISECT):
        middle = (low + high) / 2
        outside = distance(middle) > 0
        low, high = torch.where(outside, middle, low), torch.where(outside, high, middle)
    return high


def _normal(body: _Body, points: Tensor) -> Tensor:
    """Return unit normals (P, 3): the gradient of the signed distance."""
    with torch.enable_grad():
        at = points.detach().requires_grad_(True)
        (gradient,) = torch.autograd.grad(body.distance(at).sum(), at)
    return torch.nn.functional.normalize(gradient, dim=-1, eps=1e-12)


@register_world("scenes")
def scenes_world(root: Path | None) -> FactorWorld:
    """Make the world of coloured rooms: hues of floor, wall and object, scale, shape and orientation; 480,000 scenes.

    Args:
        root: not used: the images are rendered.

    Returns:
        The world, 64 × 64 pixels in colour.
    """
    data = "rendered rooms with the six factors of 3D Shapes, 64 × 64 in colour"
    return FactorWorld("scenes", FACTORS, (3, _SIDE, _SIDE), render, data=data)
