"""The largest loss in a neighbourhood of the weights, by a power method without step sizes.

The neighbourhood is w + s ∘ u with ‖u‖ ≤ ρ or |u_i| ≤ ρ. Its point of largest linear gain, at the gradient of the last
point, is the next point: ρ s∘∇L/‖s∘∇L‖, or ρ sign(∇L). Where the loss is convex it never falls (Journée et al. 2010):
a convex function is largest at such extreme points. For a quadratic loss it is the power iteration of the Hessian.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from memspace.measures.predictors.crossing import crossing
from memspace.measures.predictors.loss_surface import LossSurface

__all__ = ["Ascent", "AscentSlope", "Reach", "ascend", "reaching", "slope_at_weights"]

NEAR = 0.02  # a round that makes the box smaller by less than this is the last


@dataclass(frozen=True)
class AscentSlope:
    """Loss and gradient at the network's own weights.

    Args:
        loss: nats per prediction.
        gradient: (P,) nats per prediction and weight unit.
    """

    loss: float
    gradient: Tensor


@dataclass(frozen=True)
class Ascent:
    """The largest loss found.

    Args:
        base: loss at the weights, nats per prediction.
        rises: of the loss above it at the points tried, in order.
    """

    base: float
    rises: tuple[float, ...]

    @property
    def rise(self) -> float:
        """The largest rise of the loss, nats per prediction."""
        return max(self.rises)

    @property
    def settled(self) -> float:
        """By what share the last point still raised the largest value."""
        before = max(self.rises[:-1], default=0.0)
        return max(0.0, self.rise - before) / self.rise if self.rise > 0 else 0.0


@dataclass(frozen=True)
class Reach:
    """The smallest box found in which the worst case costs a given amount.

    Args:
        alpha: α, half the width of the box over the scale of each weight.
        settled: by what share the last round still made the box smaller.
    """

    alpha: float
    settled: float


def slope_at_weights(surface: LossSurface) -> AscentSlope:
    """Compute loss and gradient at the network's own weights.

    Args:
        surface: the loss.

    Returns:
        Both.
    """
    loss, gradient = surface.gradients(surface.theta.unsqueeze(0))
    return AscentSlope(float(loss), gradient[0])


def ascend(
    surface: LossSurface, slope: AscentSlope, scale: Tensor, radius: float, *, ball: bool, points: int, seed: int
) -> Ascent:
    """Search the largest loss at w + s ∘ u, ‖u‖₂ ≤ ρ (a ball) or max |u_i| ≤ ρ (a box).

    Args:
        surface: the loss.
        slope: at the weights.
        scale: (P,) s.
        radius: ρ.
        ball: whether the Euclidean norm of u is bounded, else its largest entry.
        points: points tried; each but the last costs a gradient.
        seed: of the direction to start with where the gradient is zero.

    Returns:
        The rises of the loss.
    """
    along = scale * slope.gradient
    if not bool(along.any()):
        along = torch.randn(len(along), generator=torch.Generator().manual_seed(seed)).to(along) * (scale > 0)
    rises = []
    for k in range(points):
        u = radius * (along / along.norm().clamp_min(1e-300) if ball else along.sign())
        point = (surface.theta + scale * u).unsqueeze(0)
        if k + 1 == points:
            loss, _ = surface.scores(point)
        else:
            loss, gradient = surface.gradients(point)
            along = scale * gradient[0]
        rises.append(float(loss) - slope.loss)
        if not bool(torch.isfinite(along).all()) or not bool(along.any()):
            break
    return Ascent(slope.loss, tuple(rises))


def reaching(
    surface: LossSurface, slope: AscentSlope, scale: Tensor, target: str, cost: float, *, start: float, rounds: int
) -> Reach | None:
    """Find the smallest box |δ_i| ≤ α s_i in which some corner costs a given amount.

    The corner is the one of largest linear gain, first at the weights, then at the corner of the smallest box so far.

    Args:
        surface: loss and accuracy.
        slope: at the weights.
        scale: (P,) s.
        target: ``"loss"`` or ``"accuracy"``.
        cost: rise of the loss in nats, or fall of the accuracy.
        start: α to begin with.
        rounds: corners tried, at most.

    Returns:
        The smallest box found; None where no corner tried costs so much.
    """
    base_loss, base_accuracy = (float(score) for score in surface.scores(surface.theta.unsqueeze(0)))
    signs, smallest, gain = slope.gradient.sign(), None, 1.0

    def costs(alpha: float) -> float:
        loss, accuracy = surface.scores((surface.theta + alpha * signs * scale).unsqueeze(0))
        return float(loss) - base_loss if target == "loss" else base_accuracy - float(accuracy)

    for k in range(rounds):
        alpha = crossing(costs, cost, smallest or start, slope=1.5)
        gain = 0.0 if alpha is None else max(0.0, 1 - alpha / smallest) if smallest else 1.0
        if alpha is None or gain == 0:
            break
        smallest = alpha
        if gain < NEAR or k + 1 == rounds:
            break
        _, gradient = surface.gradients((surface.theta + alpha * signs * scale).unsqueeze(0))
        signs = gradient[0].sign()
    return None if smallest is None else Reach(smallest, gain)
