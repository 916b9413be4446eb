"""The smallest perturbation that changes a decision, searched by projected gradient descent: an upper bound.

Within a radius projected steps from several starts reduce the smallest gap; a step that did not help is halved (Madry
et al. 2018; the halving as in Croce & Hein 2020); the radius is bisected, starting at the linearised distance in the
direction it comes from, each search starting from the best perturbation so far.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from memspace.measures.input_metric import InputReading
from memspace.progress import Progress, Silent
from memspace.task.checks import evaluating
from memspace.task.laws.definition import boundary_of
from memspace.task.task import Task

__all__ = ["AttackSearch", "Found", "minimal_perturbations", "search"]

FIRST = 1.25  # times the linearised distance: the first radius tried
DOUBLINGS = 6  # of it, before giving up


@dataclass(frozen=True)
class AttackSearch:
    """The effort of a search for small perturbations.

    Args:
        norm: 2, or ``math.inf`` for the largest entry.
        steps: gradient steps of one descent.
        restarts: random starts in addition to the best perturbation so far.
        bisections: of the radius.
        bounds: (least, largest) value an input may take, or None.
        seed: random seed of the starts.
        batch: perturbations followed at a time.
    """

    norm: float = 2.0
    steps: int = 20
    restarts: int = 3
    bisections: int = 8
    bounds: tuple[float, float] | None = None
    seed: int = 0
    batch: int = 512

    def __post_init__(self) -> None:
        if self.norm not in (2.0, math.inf):
            raise ValueError(f"the norm is 2 or infinity, got {self.norm}")


@dataclass(frozen=True)
class Found:
    """The smallest perturbations that a search met.

    Args:
        perturbation: (n, ...) change of each input.
        distance: (n,) length of each, in units of the input; infinite where no decision changed.
        passes: forward and backward passes of single inputs that the search took.
    """

    perturbation: Tensor
    distance: Tensor
    passes: int


class _Target:
    """Gaps of the network under attack at perturbed inputs."""

    def __init__(self, task: Task, bounds: tuple[float, float] | None) -> None:
        self.task, self.bounds, self.passes = task, bounds, 0
        self.boundary = boundary_of(task.likelihood)

    def gap(self, x: Tensor, decision: Tensor) -> tuple[Tensor, Tensor]:
        """The smallest gap (n,) and its gradient."""
        self.passes += len(x)
        with torch.enable_grad():
            leaf = x.detach().requires_grad_()
            least = self.boundary.gaps(self.task.model(leaf.clone()), decision).amin(-1)
            gradient = torch.autograd.grad(least.sum(), leaf)[0]
        return least.detach(), gradient

    def held(self, x: Tensor, z: Tensor, radius: Tensor, norm: float) -> Tensor:
        """Perturbations ``z`` brought within the radius and the input's bounds."""
        if norm == 2:
            tiny = torch.finfo(z.dtype).tiny
            z = z * (radius / _length(z, norm).clamp_min(tiny)).clamp(max=1.0).reshape(_one_each(z))
        else:
            r = radius.reshape(_one_each(z))
            z = torch.minimum(torch.maximum(z, -r), r)
        return z if self.bounds is None else (x + z).clamp(*self.bounds) - x


def _one_each(z: Tensor) -> tuple[int, ...]:
    return (-1,) + (1,) * (z.dim() - 1)


def _length(z: Tensor, norm: float) -> Tensor:
    length: Tensor = torch.linalg.vector_norm(z.flatten(1), norm, dim=1)
    return length


def _steepest(gradient: Tensor, norm: float) -> Tensor:
    """The step of length 1 along which the gap falls fastest."""
    if norm == 2:
        return -gradient / _length(gradient, 2).clamp_min(1e-30).reshape(_one_each(gradient))
    return -gradient.sign()


def search(
    task: Task, x: Tensor, decision: Tensor, radius: Tensor, start: Tensor, how: AttackSearch
) -> tuple[Tensor, int]:
    """Descend the smallest gap to another decision within a radius, once from a given start.

    An input whose decision has changed is not moved further.

    Args:
        task: the network.
        x: (n, ...) inputs.
        decision: decision on each input as it is.
        radius: (n,) greatest length of a perturbation.
        start: (n, ...) first perturbation.
        how: norm, steps and bounds.

    Returns:
        the perturbations (n, ...), and the passes taken.
    """
    target = _Target(task, how.bounds)
    z = _descend(target, x, decision, radius, start, how)[0]
    return z, target.passes


def _descend(
    target: _Target, x: Tensor, decision: Tensor, radius: Tensor, start: Tensor, how: AttackSearch
) -> tuple[Tensor, Tensor]:
    z = target.held(x, start, radius, how.norm)
    gap, gradient = target.gap(x + z, decision)
    step = 2 * radius  # across the ball: for linear outputs the first step is the last
    for _ in range(how.steps):
        alive = (gap > 0).nonzero().flatten()
        if not len(alive):
            break
        x_, z_, r_ = x[alive], z[alive], radius[alive]
        moved = z_ + step[alive].reshape(_one_each(z_)) * _steepest(gradient[alive], how.norm)
        moved = target.held(x_, moved, r_, how.norm)
        value, slope = target.gap(x_ + moved, decision[alive])
        better = value < gap[alive]
        step[alive] = torch.where(better, step[alive], step[alive] / 2)
        lower = alive[better]
        z[lower], gap[lower], gradient[lower] = moved[better], value[better], slope[better]
    return z, gap


def minimal_perturbations(
    task: Task, x: Tensor, reading: InputReading, how: AttackSearch, progress: Progress | None = None
) -> Found:
    """Search for the smallest perturbation of each input that changes its decision; each is checked by a forward pass.

    Distances are upper bounds: a smaller perturbation may exist.

    Args:
        task: the network.
        x: (n, ...) inputs.
        reading: of the same inputs, for the first radius.
        how: effort of the search.
        progress: where the search reports.

    Returns:
        the perturbations with their lengths.
    """
    linear, slope = (reading.linear, reading.slope) if how.norm == 2 else (reading.linear_max, reading.slope_max)
    far = 10 * float(_length(x, how.norm).max()) + 1  # where outputs are flat the linearised distance has no end
    handle = (progress := progress or Silent()).start(f"attack, norm {how.norm:g}", len(x))
    generator = torch.Generator().manual_seed(how.seed)
    perturbations, lengths, passes = [], [], 0
    size = max(1, how.batch // (1 + how.restarts))
    try:
        with evaluating(task.model):
            for rows in torch.split(torch.arange(len(x)), size):
                target = _Target(task, how.bounds)
                at = rows.to(x.device)
                first = (linear[at] * FIRST).clamp(max=far).to(x)
                start = _steepest(slope[at], how.norm) * first.reshape(_one_each(x))
                z, length = _smallest(target, x[at], reading.decision[at], first, start, how, generator)
                perturbations.append(z)
                lengths.append(length)
                passes += target.passes
                progress.advance(handle, len(rows))
    finally:
        progress.finish(handle)
    return Found(torch.cat(perturbations), torch.cat(lengths), passes)


def _smallest(
    target: _Target,
    x: Tensor,
    decision: Tensor,
    first: Tensor,
    start: Tensor,
    how: AttackSearch,
    generator: torch.Generator,
) -> tuple[Tensor, Tensor]:
    best = start
    high = torch.full_like(first, math.inf)
    low, radius = torch.zeros_like(first), first.clone()
    for attempt in range(DOUBLINGS + how.bisections):
        todo = (torch.isinf(high) if attempt < DOUBLINGS else torch.isfinite(high)).nonzero().flatten()
        if not len(todo):
            continue
        if attempt >= DOUBLINGS:
            radius[todo] = (low[todo] + high[todo]) / 2
        z, done = _tries(target, x[todo], decision[todo], radius[todo], best[todo], how, generator)
        won, lost = todo[done], todo[~done]
        best[won], high[won] = z[done], _length(z[done], how.norm)
        low[lost] = radius[lost]
        radius[lost] = 2 * radius[lost]
    best, high = _shortened(target, x, decision, best, high, how.norm)
    return best, high


def _tries(
    target: _Target,
    x: Tensor,
    decision: Tensor,
    radius: Tensor,
    best: Tensor,
    how: AttackSearch,
    generator: torch.Generator,
) -> tuple[Tensor, Tensor]:
    """Starts: the best perturbation so far, shrunk to the radius; where that fails, random ones all at once."""
    z, gap = _descend(target, x, decision, radius, best.clone(), how)
    failed = (gap > 0).nonzero().flatten()
    if len(failed) and how.restarts:
        many = failed.repeat(how.restarts)
        start = torch.randn(len(many), *x.shape[1:], generator=generator).to(x)
        if how.norm != 2:
            start = 2 * torch.special.ndtr(start) - 1  # uniform in [-1, 1]
        start = start * (radius[many] / _length(start, how.norm)).reshape(_one_each(start))
        again, other = _descend(target, x[many], decision[many], radius[many], start, how)
        other = other.reshape(how.restarts, -1)
        which = other.argmin(0)
        column = torch.arange(len(failed), device=x.device)
        z[failed] = again.reshape(how.restarts, len(failed), *x.shape[1:])[which, column]
        gap[failed] = other[which, column]
    return z, gap <= 0


@torch.no_grad()
def _shortened(
    target: _Target, x: Tensor, decision: Tensor, z: Tensor, length: Tensor, norm: float
) -> tuple[Tensor, Tensor]:
    """Perturbations cut back along their own line to the boundary, by bisection; lengths of what still changes it."""
    changes = torch.isfinite(length)
    low, high = torch.zeros_like(length), torch.ones_like(length)
    for _ in range(12):
        target.passes += len(x) // 3  # a forward pass is about a third of both
        middle = (low + high) / 2
        gap = target.boundary.gaps(target.task.model(x + z * middle.reshape(_one_each(z))), decision).amin(-1)
        low, high = torch.where(gap > 0, middle, low), torch.where(gap > 0, high, middle)
    z = z * torch.where(changes, high, torch.zeros_like(high)).reshape(_one_each(z))
    return z, torch.where(changes, _length(z, norm), torch.full_like(length, math.inf)).double()
