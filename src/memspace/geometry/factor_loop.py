"""Loops in the space of known factors, and what is left of a representation's frame after them.

A rectangle moves factor a, then b, then a and b back. Where two factors have a level of their own in the
representation, its frame comes back as it was. For a full turn of a circular factor the loop closes by itself.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from memspace.errors import SettingsError, ShapeError
from memspace.geometry.holonomy import Holonomy, frames_of, holonomy, loop_area, within_noise
from memspace.task.checks import evaluating
from memspace.value import Absent, Value

__all__ = [
    "LoopHolonomy",
    "Network",
    "Render",
    "differences",
    "full_turn",
    "jacobian_frames",
    "local_frames",
    "loop_holonomy",
    "read_at",
    "rectangle",
    "turn_holonomy",
]

Network = Callable[[Tensor], Tensor]  # inputs (B, ...) → representation (B, ...)
Render = Callable[[Tensor], Tensor]  # levels (B, K) → inputs (B, ...)

BATCH = 512
SPANNING = Absent("the frame spans the whole representation, so every transport is undone", "read a wider layer")
STEP = 0.1  # levels, of central differences along a factor


def rectangle(base: Tensor, first: int, second: int, size: float | tuple[float, float], steps: int) -> Tensor:
    """Make the loop first, second, −first, −second around some levels, which are the rectangle's middle.

    Args:
        base: (K,) levels.
        first: position of a factor.
        second: position of another factor.
        size: length of the sides, in levels of the factors; two numbers where they differ.
        steps: on each side.

    Returns:
        (4·steps, K) levels in order, without the first one again.

    Raises:
        SettingsError: there is no loop: one factor twice, or fewer than two steps.
    """
    if first == second or steps < 2:
        what = f"a loop of factors {first} and {second} in {steps} steps a side encloses nothing"
        raise SettingsError(what, where="rectangle", remedy="give two factors and two steps or more")
    width, height = size if isinstance(size, tuple) else (size, size)
    t = torch.arange(steps, dtype=torch.float64) / steps
    one, zero = torch.ones_like(t), torch.zeros_like(t)
    levels = base.double().repeat(4 * steps, 1)
    levels[:, first] += width * (torch.cat([t, one, 1 - t, zero]) - 0.5)
    levels[:, second] += height * (torch.cat([zero, t, one, 1 - t]) - 0.5)
    return levels


def full_turn(base: Tensor, factor: int, period: float, steps: int) -> Tensor:
    """Make the loop of one circular factor through its whole period.

    Args:
        base: (K,) levels at which it begins.
        factor: position of the circular factor.
        period: number of its levels in a full turn.
        steps: of the loop.

    Returns:
        (steps, K) levels in order, without the first one again.
    """
    levels = base.double().repeat(steps, 1)
    levels[:, factor] += period * torch.arange(steps, dtype=torch.float64) / steps
    return levels


@torch.no_grad()
def read_at(network: Network, render: Render, levels: Tensor) -> Tensor:
    """Read a representation of rendered levels, in parts; a module is read in evaluation mode and left as it was.

    Args:
        network: inputs ↦ (B, ...) representation.
        render: levels ↦ inputs.
        levels: (S, K).

    Returns:
        (S, d) float64 on the CPU.
    """

    def read() -> Tensor:
        parts = [network(render(part)).flatten(1).double().cpu() for part in torch.split(levels, BATCH)]
        return torch.cat(parts)

    if isinstance(network, nn.Module):
        with evaluating(network):
            return read()
    return read()


def differences(network: Network, render: Render, levels: Tensor, factors: Sequence[int], step: float = STEP) -> Tensor:
    """Compute derivatives of a representation by factors: central differences through the renderer.

    Args:
        network: inputs ↦ (B, ...) representation.
        render: levels ↦ inputs.
        levels: (S, K) at which.
        factors: positions of the k factors that are moved.
        step: of the differences, in levels.

    Returns:
        (S, d, k) per level; error of second order in the step.
    """
    columns = []
    for k in factors:
        shift = torch.zeros_like(levels)
        shift[:, k] = step
        moved = read_at(network, render, torch.cat([levels + shift, levels - shift]))
        columns.append((moved[: len(levels)] - moved[len(levels) :]) / (2 * step))
    return torch.stack(columns, 2)


@dataclass(frozen=True)
class LoopHolonomy:
    """The holonomy of a representation around one loop of factors.

    Args:
        loop: with the frames at all points.
        coarse: with those at every second point: what the number of steps matters.
        area: that the loop encloses in the representation, squared units of it.
        tangents: (S, d, k) the directions.
        rank: of the frames.
    """

    loop: Holonomy
    coarse: Holonomy
    area: float
    tangents: Tensor
    rank: int

    @property
    def angle(self) -> float:
        """‖log Hol‖_F, radians."""
        return self.loop.angle

    def value(self) -> Value | Absent:
        """Return the angle with a bound of the error that the number of steps leaves.

        Returns:
            Radians, ± the change by the last halving of the step, three times what is left of it for a smooth
            representation; absent where the frame spans the whole representation.
        """
        if self.tangents.shape[1] <= self.rank:
            return SPANNING
        plain = self.loop.value()
        change = abs(self.angle - self.coarse.angle)
        return Value(
            self.angle,
            plain.n,
            (max(0.0, self.angle - change), self.angle + change),
            how="interval: change by the last halving of the step",
            reliable=plain.reliable and self.coarse.resolved,
            note=plain.note or ("" if self.coarse.resolved else "every second step alone would be too coarse"),
        )

    def null(self, error: Tensor | float, draws: int = 199, seed: int = 0) -> Value:
        """Draw the angle that errors of the directions give on a path that is retraced, whose holonomy is nought.

        Args:
            error: standard deviation of the directions' entries: of an encoder's noise, or of the differences.
            draws: of the noise.
            seed: random seed.

        Returns:
            The mean, radians; the interval holds 95% of single draws.
        """
        angles = within_noise(self.tangents, error, rank=self.rank, draws=draws, seed=seed).sort().values
        low, high = angles[int(0.025 * draws)], angles[min(draws - 1, int(0.975 * draws))]
        return Value(float(angles.mean()), draws, (float(low), float(high)), how="interval: 95% of single draws")


def loop_holonomy(
    network: Network, render: Render, levels: Tensor, factors: Sequence[int], *, step: float = STEP
) -> LoopHolonomy:
    """Carry the frame of some factors' directions around a loop of levels.

    Args:
        network: inputs ↦ (B, ...) representation.
        render: levels ↦ inputs; ``Factors.render`` for instance.
        levels: (S, K) of the loop, by :func:`rectangle` or :func:`full_turn`; S even.
        factors: positions of the factors whose directions span the frame; they are fewer than the dimensions.
        step: of the differences, in levels.

    Returns:
        the holonomy; of the surface that two factors sweep, it is the curvature enclosed by the loop.

    Raises:
        ShapeError: some factor does not move the representation somewhere on the loop.
    """
    tangents = differences(network, render, levels, factors, step)
    points = read_at(network, render, levels)
    frames = frames_of(tangents)
    return LoopHolonomy(holonomy(frames), holonomy(frames[::2]), loop_area(points), tangents, len(factors))


def jacobian_frames(network: Network, inputs: Tensor, rank: int) -> Tensor:
    """Compute frames of the leading left singular vectors of ∂z/∂x: where the representation moves most.

    They need no renderer, so they serve photographs too. Of a linear network they are the same at every input.

    Args:
        network: inputs ↦ (B, ...) representation, differentiable.
        inputs: (S, ...) along the loop.
        rank: r.

    Returns:
        (S, d, r) float64; exact derivatives. Where singular values r and r + 1 are near, frames turn by chance.
    """

    def read() -> Tensor:
        leaf = inputs.detach().requires_grad_()
        z = network(leaf.clone()).flatten(1)
        rows = [torch.autograd.grad(column.sum(), leaf, retain_graph=True)[0].flatten(1) for column in z.T]
        return torch.stack(rows, 1).double().cpu()

    with torch.enable_grad():
        if isinstance(network, nn.Module):
            with evaluating(network):
                return frames_of(read(), rank)
        return frames_of(read(), rank)


def local_frames(points: Tensor, rank: int = 2, reach: int = 1) -> Tensor:
    """Compute frames of a closed curve from its neighbouring points: leading directions of their differences.

    Args:
        points: (S, d) of the curve in order.
        rank: r; 1 is the tangent, 2 the osculating plane.
        reach: how many neighbours on each side.

    Returns:
        (S, d, r) orthonormal columns.

    Raises:
        ShapeError: there are fewer neighbours than directions.
    """
    shifts = [j for j in range(-reach, reach + 1) if j]
    if rank > len(shifts) or len(points) < 2 * reach + 2:
        raise ShapeError(
            f"{len(points)} points with {len(shifts)} neighbours give no {rank} directions",
            where="local_frames",
            remedy="give more points, a larger reach or a smaller rank",
        )
    return frames_of(torch.stack([points.roll(-j, 0) - points for j in shifts], 2), rank)


def turn_holonomy(frames: Callable[[Tensor], Tensor], count: int) -> Value | Absent:
    """Measure the holonomy around a full turn of poses, with the error that their number leaves.

    Both halves of the poses (every second one) give the angle with twice the step. The interval reaches as far as the
    half that differs more: for a smooth turn, three times what the step still lacks. It tells of these photographs,
    not of others of the same object.

    Args:
        frames: positions of poses in order ↦ (S, d, r) frames of these poses alone, for instance
            ``lambda at: local_frames(z[at])`` or ``lambda at: jacobian[at]``.
        count: number of poses.

    Returns:
        ‖log Hol‖_F in radians; not reliable where frames of every second pose hardly overlap, or a plane turned by
        nearly π; absent where the frame spans the whole representation.
    """
    poses = torch.arange(count)
    basis = frames(poses)
    if basis.shape[1] <= basis.shape[2]:
        return SPANNING
    whole = holonomy(basis)
    halves = [holonomy(frames(poses[k::2])) for k in range(2)]
    change = max(abs(half.angle - whole.angle) for half in halves)
    plain = whole.value()
    coarse = not all(half.resolved for half in halves)
    note = plain.note or ("every second pose alone would be too coarse" if coarse else "")
    return Value(
        whole.angle,
        count,
        (max(0.0, whole.angle - change), whole.angle + change),
        how="interval: every second pose alone",
        reliable=plain.reliable and not coarse,
        note=note,
    )
