"""Angles, loops, clouds, decoders and rotations with known answers: errors, and the orders at which they fall."""

from __future__ import annotations

import argparse
import itertools
import math
from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor, nn

from benchmarks.table import Row, at_least, at_most
from memspace.geometry.factor_loop import LoopHolonomy, loop_holonomy, rectangle
from memspace.geometry.latent import latent_geodesics
from memspace.geometry.representation_holonomy import representation_holonomy
from memspace.measures.factor_metric import commutator, cosines, encoder_directions, joint_efficiency
from memspace.measures.rotation import rotation_intervention
from memspace.task.likelihood import Bernoulli

__all__ = ["rows"]

PART = "geometry"
ROUNDING = 1e-9
NAMES = ("a", "b", "c")
MIDDLE = torch.tensor([1.0, 0.3, 5.0], dtype=torch.float64)
RADII = (0.2, 0.1, 0.05, 0.025)
SIZES = (4, 3, 5)


def rows(arguments: argparse.Namespace) -> list[Row]:
    seeds = list(arguments.seeds)
    return [
        *_angles(seeds),
        *_commutators(),
        *_frames(seeds),
        *_clouds(seeds),
        *_decoders(arguments.small),
        *_rotations(range(5 if arguments.small else 20)),
    ]


def _angles(seeds: Sequence[int]) -> list[Row]:
    mixed = torch.tensor([[1.0, 1, 0], [1, 1, 0], [0, 0, 1]], dtype=torch.float64)
    slants = {"identity encoder": torch.eye(3, dtype=torch.float64), "pair mixed in one direction": mixed}
    out = []
    for (name, slant), want in zip(slants.items(), (1.0, 0.0), strict=True):
        errors = []
        for seed in seeds:
            levels = 4 * torch.rand(40, 3, generator=_generator(seed), dtype=torch.float64)

            def encoder(x: Tensor, slant: Tensor = slant) -> tuple[Tensor, Tensor]:
                return x @ slant, torch.ones_like(x)

            moved = encoder_directions(encoder, _plain, levels, NAMES, (0, 1))
            errors.append(float((1 - cosines(moved.metric)[:, 0, 1] - want).abs().max()))
        out.append(
            at_most(PART, f"{name}: orthogonality less {want:g}", [max(errors)], ROUNDING, "largest at any input")
        )
    worst = []
    for seed, count in itertools.product(seeds, (2, 3, 5, 8)):
        seen = torch.randn(200, count, count + 2, generator=_generator(seed), dtype=torch.float64)
        metric = seen @ seen.mT
        bound = 1 / (metric * torch.linalg.inv(metric)).diagonal(dim1=1, dim2=2)
        worst.append(float((joint_efficiency(metric) / bound - 1).abs().max()))
    detail = f"largest relative difference, 2 to 8 factors, {200 * len(worst)} metrics"
    return [
        *out,
        at_most(PART, "joint efficiency against the Cramér–Rao bound by inversion", [max(worst)], 1e-6, detail),
    ]


def _commutators() -> list[Row]:
    inputs = torch.randn(200, 3, generator=_generator(0), dtype=torch.float64)
    right, up = torch.eye(3, dtype=torch.float64)[:2]
    shifts = commutator(_plain, lambda x: x + 0.3 * right, lambda x: x + 0.2 * up, inputs)[0]
    out = [at_most(PART, "commutator of two shifts", [shifts.value], ROUNDING)]
    angles = (0.4, 0.2, 0.1, 0.05)
    gaps, errors = [], []
    for angle in angles:
        a, b = _turn(0, angle), _turn(1, angle)
        gap = commutator(_plain, lambda x, a=a: x @ a.T, lambda x, b=b: x @ b.T, inputs)[0]
        gaps.append(gap.value)
        errors.append(abs(gap.value / float((inputs @ (a @ b - b @ a).T).norm(dim=1).mean()) - 1))
    out.append(at_most(PART, "commutator of turns about two axes, relative error", [max(errors)], ROUNDING))
    return [*out, _order("commutator of turns against their angle: exponent", angles, gaps, 2, 0.05)]


def _frames(seeds: Sequence[int]) -> list[Row]:
    out = []
    for size in ((0.6, 0.8), (0.3, 1.1), (1.0, 1.0)):
        enclosed = size[1] * (math.cos(1 - size[0] / 2) - math.cos(1 + size[0] / 2))
        steps = (8, 16, 32, 64)
        errors = [abs(_loop(_sphere, size, n, step=1e-4).loop.turn - enclosed) for n in steps]
        name = f"sphere, loop of {size[0]:g} by {size[1]:g}"
        out.append(at_most(PART, f"{name}: turn less solid angle", errors[-1:], 1e-3, f"{enclosed:.4f} in 64 steps"))
        out.append(_order(f"{name}: order of the error", [1 / n for n in steps], errors, 2, 0.05))
    product = [_loop(_torus, 1.0, n).angle for n in (6, 12, 24)]
    out.append(at_most(PART, "product of two circles: angle left, radians", [max(product)], 1e-7))
    linear = [_loop(_linear(seed, 3, 6), 1.0, 12).angle for seed in seeds]
    out.append(at_most(PART, "linear layer: angle left, radians", [max(linear)], 1e-7))
    sides = (0.4, 0.2, 0.1, 0.05)
    for seed in seeds:
        network = _network(seed, 3, 8)
        angles = [_loop(network, side, 16).angle for side in sides]
        out.append(_order(f"tanh network {seed}: angle against the loop's side: exponent", sides, angles, 2, 0.1))
    return out


def _clouds(seeds: Sequence[int]) -> list[Row]:
    even = torch.randn(3000, 4, generator=_generator(0), dtype=torch.float64)
    pools = {"300 normal inputs": even[:300], "3,000 normal inputs": even, "300 skewed inputs": even[:300].exp()}
    out = []
    for name, pool in pools.items():
        layers = [_linear(seed, 4, 6) for seed in seeds]
        moved, pooled = (
            [representation_holonomy(f, _circle(1.0), pool, neighbours=40, clouds=c).score for f in layers]
            for c in ("moved", "pooled")
        )
        out.append(at_most(PART, f"clouds moved, linear layer, pool of {name}: score", [max(moved)], ROUNDING))
        detail = "the clouds differ by a shift alone; the same for every layer, by whitening"
        quantity = f"clouds pooled, linear layer, pool of {name}: score"
        out.append(Row(PART, quantity, "", pooled[0], None, None, None, detail))
    for seed, clouds in itertools.product(seeds, ("moved", "pooled")):
        network, pool = _network(seed, 4, 6), even[:300]
        scores = [representation_holonomy(network, _circle(r), pool, neighbours=60, clouds=clouds).score for r in RADII]
        quantity = f"clouds {clouds}, tanh network {seed}: score against the radius: exponent"
        out.append(_order(quantity, RADII, scores, 1, None))
        fall = [scores[-1] / scores[0]]
        out.append(
            at_most(PART, f"clouds {clouds}, tanh network {seed}: score at an eighth of the radius, share", fall, 0.125)
        )
    return out


def _decoders(small: bool) -> list[Row]:
    starts, ends = torch.randn(2, 4, 3, generator=_generator(1), dtype=torch.float64)
    linear = _linear(0, 3, 7)
    flat = latent_geodesics(linear, starts, ends)
    straight = (ends - starts) @ linear.weight.detach().T
    lengths = _relative(flat.length, straight.norm(dim=1))
    bend = float((flat.points - flat.straight).abs().max())
    out = [
        at_most(PART, "flat decoder: path less straight line, latent units", [bend], 1e-6),
        at_most(PART, "flat decoder: relative error of lengths", [max(lengths)], ROUNDING),
    ]
    for name, (decoder, distance, starts, ends) in _curved().items():
        want = distance(starts, ends)
        points = (9, 17) if small else (9, 17, 33)
        errors = []
        for k in range(len(points)):
            paths = latent_geodesics(decoder, starts, ends, levels=points[: k + 1], limit=400, tolerance=1e-10)
            errors.append(max(_relative(paths.length, want)))
        detail = f"{len(starts)} pairs, {points[-1]} points; straight lines are longer by up to "
        detail += f"{float((paths.straight_length / want - 1).max()):.2g}"
        out.append(at_most(PART, f"{name} decoder: largest relative error of lengths", errors[-1:], 1e-3, detail))
        out.append(
            _order(f"{name} decoder: order in the side of a path", [1 / (n - 1) for n in points], errors, 2, 0.3)
        )
    law = latent_geodesics(_logit, -torch.ones(1, 1).double(), torch.ones(1, 1).double(), law=Bernoulli(), limit=300)
    closed = 2 * (math.asin(math.sqrt(0.9)) - math.asin(math.sqrt(0.1)))
    error = _relative(law.length, torch.tensor([closed], dtype=torch.float64))
    return [*out, at_most(PART, "a probability from 0.1 to 0.9: relative error of the Fisher–Rao length", error, 1e-3)]


Closed = tuple[Callable[[Tensor], Tensor], Callable[[Tensor, Tensor], Tensor], Tensor, Tensor]


def _curved() -> dict[str, Closed]:
    """Decoders whose latents are a sphere and a hyperbolic plane, with distances in closed form."""
    starts = torch.tensor([[0.9, 0.0], [1.2, 0.5], [0.6, -1.0]], dtype=torch.float64)
    ends = torch.tensor([[0.9, 1.8], [0.7, -0.6], [1.9, 0.4]], dtype=torch.float64)
    low = torch.tensor([[0.0, 1.3], [0.5, 1.5], [-1.0, 3.0]], dtype=torch.float64)
    high = torch.tensor([[2.5, 1.3], [-0.8, 4.0], [2.0, 1.4]], dtype=torch.float64)

    def great_circle(x: Tensor, y: Tensor) -> Tensor:
        return torch.acos((_sphere(x) * _sphere(y)).sum(1))

    def half_plane(x: Tensor, y: Tensor) -> Tensor:
        return torch.acosh(1 + (x - y).square().sum(1) / (2 * x[:, 1] * y[:, 1]))

    return {"spherical": (_sphere, great_circle, starts, ends), "hyperbolic": (_pseudosphere, half_plane, low, high)}


def _rotations(seeds: Sequence[int]) -> list[Row]:
    """Rotated latents of isotropic posteriors, whose factors are bent by a different amount for every seed."""
    changes: list[float] = []
    before: dict[str, list[float]] = {}
    falls: dict[str, list[float]] = {}
    for seed in seeds:
        generator = _generator(seed)
        levels = torch.stack([torch.randint(0, s, (600,), generator=generator) for s in SIZES], 1).double()
        bends = 0.1 * torch.rand(3, generator=generator, dtype=torch.float64)

        def encoder(x: Tensor, bends: Tensor = bends) -> tuple[Tensor, Tensor]:
            middle = (torch.tensor(SIZES) - 1) / 2
            mean = (x - middle) / torch.tensor([1.1, 0.8, 1.4]) + bends * ((x - middle) ** 2 - 1)
            return mean, (0.2 * torch.exp(0.1 * x.sum(1, keepdim=True))).expand(-1, 3)

        measured = rotation_intervention(encoder, _plain, levels, NAMES, (0, 1, 2), rotations=5, seed=seed)
        changes.append(measured.change)
        for name, value in measured.before.items():
            before.setdefault(name, []).append(value)
            falls.setdefault(name, []).append(value - measured.after[name].value)
    detail = f"{len(changes)} encoders, 5 rotations each"
    out = [at_most(PART, "rotated latent: largest change of a |cos| between factors", [max(changes)], 1e-6, detail)]
    for name, values in falls.items():
        detail = f"{np.mean(before[name]):.2f} before, {np.mean(before[name]) - np.mean(values):.2f} after"
        row = at_least(PART, f"rotated latent: fall of {name}", values, 0, detail)
        falling = row.low is not None and row.low > 0
        out.append(Row(row.part, row.quantity, "interval above 0", row.value, row.low, row.high, falling, row.detail))
    return out


def _order(quantity: str, sizes: Sequence[float], errors: Sequence[float], want: float, reach: float | None) -> Row:
    """Slope of errors against sizes on logarithmic scales; ``reach`` None: no less than ``want``."""
    slope = float(np.polyfit(np.log(sizes), np.log(errors), 1)[0])
    met = slope >= want if reach is None else abs(slope - want) <= reach
    goal = f"≥ {want:g}" if reach is None else f"{want:g} ± {reach:g}"
    return Row(PART, quantity, goal, slope, None, None, met, "at " + ", ".join(f"{e:.1e}" for e in errors))


def _relative(values: Tensor, want: Tensor) -> list[float]:
    return [float(e) for e in (values / want - 1).abs()]


def _loop(
    network: Callable[[Tensor], Tensor], size: float | tuple[float, float], steps: int, step: float = 1e-3
) -> LoopHolonomy:
    return loop_holonomy(network, _plain, rectangle(MIDDLE, 0, 1, size, steps), (0, 1), step=step)


def _generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def _plain(levels: Tensor) -> Tensor:
    return levels.double()


def _linear(seed: int, inputs: int, outputs: int) -> nn.Linear:
    torch.manual_seed(seed)
    return nn.Linear(inputs, outputs).double()


def _network(seed: int, inputs: int, outputs: int) -> nn.Sequential:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(inputs, 20), nn.Tanh(), nn.Linear(20, outputs)).double()


def _circle(radius: float, steps: int = 12) -> Tensor:
    angle = torch.arange(steps, dtype=torch.float64)[:, None] * 2 * math.pi / steps
    plane = torch.eye(4, dtype=torch.float64)
    return radius * (angle.cos() * plane[0] + angle.sin() * plane[1])


def _sphere(x: Tensor) -> Tensor:
    """Colatitude and azimuth to the unit sphere."""
    a, b = x[:, 0], x[:, 1]
    return torch.stack([a.sin() * b.cos(), a.sin() * b.sin(), a.cos()], 1)


def _torus(x: Tensor) -> Tensor:
    """Two factors, each on a circle of its own."""
    a, b = x[:, 0], x[:, 1]
    return torch.stack([a.cos(), a.sin(), 2 * b.cos(), 2 * b.sin()], 1)


def _pseudosphere(x: Tensor) -> Tensor:
    """The half-plane above height 1, with curvature −1, as a surface in space."""
    azimuth, height = x[:, 0], x[:, 1]
    along = torch.acosh(height)
    return torch.stack([azimuth.cos() / height, azimuth.sin() / height, along - torch.tanh(along)], 1)


def _logit(z: Tensor) -> Tensor:
    return math.log(9) * z**3


def _turn(axis: int, angle: float) -> Tensor:
    slope = torch.zeros(3, 3, dtype=torch.float64)
    i, j = (axis + 1) % 3, (axis + 2) % 3
    slope[j, i], slope[i, j] = angle, -angle
    return torch.linalg.matrix_exp(slope)
