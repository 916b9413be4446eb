"""Common corruptions of inputs at rising severity, and the severity at which a decision first changes.

Pictures: noise, blur, brightness, contrast, rotation, shift (after Hendrycks & Dietterich 2019). Vectors: noise and
masking. Severities of noise, brightness and contrast are in units of the inputs' spread.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from memspace.progress import Progress, Silent
from memspace.task.checks import evaluating
from memspace.task.laws.definition import boundary_of
from memspace.task.task import Task

__all__ = ["CORRUPTIONS", "Corrupted", "Corruption", "corrupt", "picture_shape"]


@dataclass(frozen=True)
class Corruption:
    """A named corruption of inputs at ascending severities.

    Args:
        name: for people.
        unit: of the severity.
        severities: ascending.
        apply: maps inputs, severity, scale of the inputs and generator to corrupted inputs: pictures (n, c, h, w) or
            vectors (n, D).
        pictures: whether it needs pictures.
        random: whether it differs from draw to draw.
    """

    name: str
    unit: str
    severities: tuple[float, ...]
    apply: Callable[[Tensor, float, float, torch.Generator], Tensor]
    pictures: bool
    random: bool = False


def _noise(x: Tensor, severity: float, scale: float, generator: torch.Generator) -> Tensor:
    return x + severity * scale * torch.randn(x.shape, generator=generator).to(x)


def _mask(x: Tensor, severity: float, scale: float, generator: torch.Generator) -> Tensor:
    return x * (torch.rand(x.shape, generator=generator).to(x) >= severity)


def _blur(x: Tensor, severity: float, scale: float, generator: torch.Generator) -> Tensor:
    """Gaussian of that many pixels' width, edges repeated."""
    reach = max(1, math.ceil(3 * severity))
    at = torch.arange(-reach, reach + 1, device=x.device, dtype=x.dtype)
    weights = torch.exp(-(at**2) / (2 * severity**2))
    kernel = (weights / weights.sum()).reshape(1, 1, 1, -1)
    flat = x.reshape(-1, 1, *x.shape[-2:])
    flat = torch.nn.functional.pad(flat, (reach, reach, reach, reach), mode="replicate")
    flat = torch.nn.functional.conv2d(torch.nn.functional.conv2d(flat, kernel), kernel.transpose(2, 3))
    return flat.reshape(x.shape)


def _brightness(x: Tensor, severity: float, scale: float, generator: torch.Generator) -> Tensor:
    return x + severity * scale


def _contrast(x: Tensor, severity: float, scale: float, generator: torch.Generator) -> Tensor:
    """Towards the picture's own mean; 1: nothing left."""
    mean = x.mean((1, 2, 3), keepdim=True)
    return mean + (1 - severity) * (x - mean)


def _affine(x: Tensor, angle: float, dx: float, dy: float) -> Tensor:
    """Rotation by an angle in degrees and a shift in pixels, bilinear, edges repeated."""
    h, w = x.shape[-2:]
    a = math.radians(angle)
    rows = [
        [math.cos(a), -math.sin(a) * h / w, -2 * dx / w],
        [math.sin(a) * w / h, math.cos(a), -2 * dy / h],
    ]
    grid = torch.nn.functional.affine_grid(
        torch.tensor(rows, device=x.device, dtype=x.dtype).expand(len(x), 2, 3), list(x.shape), align_corners=False
    )
    return torch.nn.functional.grid_sample(x, grid, padding_mode="border", align_corners=False)


def _rotation(x: Tensor, severity: float, scale: float, generator: torch.Generator) -> Tensor:
    return _affine(x, severity, 0.0, 0.0)


def _shift(x: Tensor, severity: float, scale: float, generator: torch.Generator) -> Tensor:
    """To the right, by a share of the width."""
    return _affine(x, 0.0, severity * x.shape[-1], 0.0)


CORRUPTIONS = (
    Corruption("noise", "σ of the inputs", (0.1, 0.2, 0.3, 0.5, 0.7, 1.0, 1.5, 2.0), _noise, False, True),
    Corruption("mask", "share set to 0", (0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.7, 0.9), _mask, False, True),
    Corruption("blur", "pixels", (0.3, 0.5, 0.7, 1.0, 1.5, 2.0, 3.0, 4.0), _blur, True),
    Corruption("brightness", "σ of the inputs", (0.1, 0.2, 0.3, 0.5, 0.7, 1.0, 1.5, 2.0), _brightness, True),
    Corruption("contrast", "share removed", (0.1, 0.2, 0.3, 0.5, 0.6, 0.7, 0.8, 0.9), _contrast, True),
    Corruption("rotation", "degrees", (5, 10, 15, 20, 30, 45, 60, 90), _rotation, True),
    Corruption("shift", "share of the width", (0.03, 0.06, 0.09, 0.12, 0.16, 0.2, 0.25, 0.3), _shift, True),
)


@dataclass(frozen=True)
class Corrupted:
    """The decisions under one corruption.

    Args:
        corruption: which.
        kept: (S,) share of decisions that stay, at each severity.
        first: (n,) lowest severity at which an input's decision changes, averaged over draws of a random corruption.
            One grid step beyond the last where none changes it.
    """

    corruption: Corruption
    kept: Tensor
    first: Tensor


def fitting(pictures: bool) -> list[Corruption]:
    """Return the corruptions that make sense for pictures, or for vectors.

    Args:
        pictures: whether the inputs are pictures.

    Returns:
        the corruptions, in the order of :data:`CORRUPTIONS`.
    """
    return [c for c in CORRUPTIONS if (c.name != "mask" if pictures else not c.pictures)]


def picture_shape(task: Task, x: Tensor) -> tuple[int, int, int] | None:
    """Return the shape of the inputs as pictures.

    Args:
        task: may state the shape of its inputs.
        x: (n, ...) inputs.

    Returns:
        (c, h, w); None where the inputs are not pictures.
    """
    shape = tuple(x.shape[1:])
    if task.input_shape is not None and math.prod(task.input_shape) == x[0].numel():
        shape = task.input_shape
    if len(shape) == 2:
        shape = (1, *shape)
    return (shape[0], shape[1], shape[2]) if len(shape) == 3 and shape[0] <= 4 and min(shape[1:]) > 3 else None


@torch.no_grad()
def corrupt(
    task: Task, x: Tensor, decision: Tensor, *, draws: int = 4, seed: int = 0, progress: Progress | None = None
) -> tuple[Corrupted, ...]:
    """Apply every corruption that fits the inputs and compare the decisions with those on the clean inputs.

    Args:
        task: the network.
        x: (n, ...) inputs.
        decision: decision on each clean input.
        draws: of corruptions that are random.
        seed: random seed of these.
        progress: where the corruptions report.

    Returns:
        one entry for each corruption.
    """
    shape, boundary = picture_shape(task, x), boundary_of(task.likelihood)
    chosen = fitting(shape is not None)
    scale = float(x.std())
    generator = torch.Generator().manual_seed(seed)
    out = []
    with evaluating(task.model):
        for c in (progress or Silent()).track(chosen, "corruptions", len(chosen)):
            runs = draws if c.random else 1
            changed = x.new_zeros(runs, len(c.severities), len(x), dtype=torch.bool)
            pictures = x if shape is None else x.reshape(len(x), *shape)
            for run in range(runs):
                for k, severity in enumerate(c.severities):
                    worse = c.apply(pictures, severity, scale, generator).reshape(x.shape)
                    f = torch.cat([task.model(part) for part in torch.split(worse, 512)])
                    changed[run, k] = boundary.gaps(f, decision).amin(-1) <= 0
            out.append(_summary(c, changed))
    return tuple(out)


def _summary(c: Corruption, changed: Tensor) -> Corrupted:
    s = torch.tensor(c.severities, dtype=torch.float64, device=changed.device)
    levels = torch.cat([s, s[-1:] + (s[-1] - s[-2])])
    first = torch.where(changed.any(1), changed.int().argmax(1), len(s))
    return Corrupted(c, 1 - changed.double().mean((0, 2)), levels[first].mean(0))
