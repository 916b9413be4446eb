"""How much the training loss rises around the weights at worst and on average, and its curvature there."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from memspace.measures.declaration import measure, provides
from memspace.measures.predictors.ascent import Ascent, AscentSlope, Reach, ascend, reaching, slope_at_weights
from memspace.measures.predictors.loss_surface import LossSurface, initial_weights
from memspace.measures.predictors.pac_bayes import COST, ToleratedNoise
from memspace.measures.values import Budget
from memspace.passes.space import ParameterSpace
from memspace.task.task import Task
from memspace.value import Absent, Value

__all__ = ["AverageRise", "SmallestBoxes", "average_rise", "bound_term", "keskar_scale"]

KESKAR = 1e-3  # ε of the box ε(|w| + 1)
SAM, ASAM = 0.05, 0.5  # radii ρ that training with sharpness-aware minimisation uses on small images
CORNER, SPREAD = 0.01, 0.1  # ρ of the box ρ|w|, and of noise of standard deviation ρ|w|
POINTS, ROUNDS, PAIRS = 4, 3, 5
SETTLED = 0.1  # an ascent whose last point adds more than this share of the value has not settled


@dataclass(frozen=True)
class SmallestBoxes:
    """The smallest boxes in which the worst case costs 0.1 of the accuracy (without decisions: 0.1 nats).

    Args:
        target: ``"accuracy"`` or ``"loss"``.
        plain: |δ_i| ≤ α; None: none was ascent.
        magnitude: |δ_i| ≤ α|w_i|; None: none was ascent.
    """

    target: str
    plain: Reach | None
    magnitude: Reach | None


@dataclass(frozen=True)
class AverageRise:
    """Rise of the loss under noise of standard deviation 0.1|w|.

    Args:
        plain: (pairs,) nats per prediction, each the mean over a draw of the noise with both signs.
        normalised: the same of the loss of the outputs' directions; or why there is none.
    """

    plain: Tensor
    normalised: Tensor | Absent


@provides()
def slope(surface: LossSurface) -> AscentSlope:
    """Compute the gradient of the loss at the weights."""
    return slope_at_weights(surface)


@provides()
def smallest_boxes(task: Task, surface: LossSurface, slope: AscentSlope) -> SmallestBoxes | Absent:
    """Search the smallest boxes around the weights in which the worst case costs a tenth."""
    theta = surface.theta
    size = float(theta.square().mean().sqrt())
    if not size > 0:
        return Absent("all weights are zero", "read a trained network")
    target = "accuracy" if task.likelihood.classifies else "loss"
    starts = ((torch.ones_like(theta), 0.02 * size), (theta.abs(), 0.02))
    boxes = [reaching(surface, slope, s, target, COST, start=start, rounds=ROUNDS) for s, start in starts]
    return SmallestBoxes(target, *boxes)


@provides()
def average_rise(surface: LossSurface, budget: Budget) -> AverageRise:
    """Move every weight at random in proportion to its magnitude."""
    theta, directions = surface.theta, surface.on_directions()
    readings = [s for s in (surface, directions) if isinstance(s, LossSurface)]
    generator = torch.Generator().manual_seed(budget.seed + 42)

    def losses(points: Tensor) -> Tensor:
        with torch.no_grad():
            f = surface.outputs(points)
            return torch.stack([reading.loss_of(f) for reading in readings])

    base, rises = losses(theta.unsqueeze(0)), []
    for _ in range(PAIRS):
        step = SPREAD * theta.abs() * torch.randn(len(theta), generator=generator).to(theta)
        rises.append(losses(torch.stack([theta + step, theta - step])).mean(1, keepdim=True) - base)
    columns = list(torch.cat(rises, 1).cpu())
    return AverageRise(columns[0], directions if isinstance(directions, Absent) else columns[1])


def keskar_scale(theta: Tensor) -> Tensor:
    """Give the box of Keskar et al. 2017, |δ_i| ≤ ε(|w_i| + 1), by its scale |w_i| + 1.

    Args:
        theta: (P,) weights.

    Returns:
        (P,).
    """
    return theta.abs() + 1


def _largest(ascent: Ascent, surface: LossSurface, factor: float = 1.0) -> Value:
    """The largest rise found, times a factor: a lower bound of the worst case."""
    how = f"largest of {len(ascent.rises)} points of an ascent, {surface.how}"
    note = "an ascent finds at most the worst case"
    settled = ascent.settled <= SETTLED and ascent.rise > 0
    if not settled:
        note = f"its last point still added {ascent.settled:.0%}" if ascent.rise > 0 else "no point had a larger loss"
    return Value(factor * ascent.rise, surface.examples, None, how=how, reliable=settled, note=note)


@measure(
    "sharpness.box",
    chapter="predictors",
    unit="%",
    estimator="100 (max L(w + δ) − L(w))/(1 + L(w)), |δ_i| ≤ 0.001 (|w_i| + 1)",
    source="keskar2017, journee2010",
    better="smaller",
)
def in_a_box(surface: LossSurface, slope: AscentSlope, budget: Budget) -> Value:
    """Largest relative rise of the training loss when every weight moves a little."""
    scale = keskar_scale(surface.theta)
    ascent = ascend(surface, slope, scale, KESKAR, ball=False, points=POINTS, seed=budget.seed + 43)
    return _largest(ascent, surface, 100 / (1 + ascent.base))


@measure(
    "sharpness.ascent",
    chapter="predictors",
    unit="nats",
    estimator=f"L(w + ρ∇L/‖∇L‖) − L(w), ρ = {SAM:g}",
    source="foret2021",
    better="smaller",
)
def one_step(surface: LossSurface, slope: AscentSlope, budget: Budget) -> Value:
    """Rise of the training loss by one step of a fixed length along its gradient."""
    ones = torch.ones_like(surface.theta)
    ascent = ascend(surface, slope, ones, SAM, ball=True, points=1, seed=budget.seed + 43)
    return Value(ascent.rises[0], surface.examples, None, how=surface.how, note="exact for the sample")


@measure(
    "sharpness.adaptive",
    chapter="predictors",
    unit="nats",
    estimator=f"max L(w + δ) − L(w), Σ (δ_i/w_i)² ≤ ρ², ρ = {ASAM:g}",
    source="kwon2021, journee2010",
    better="smaller",
)
def adaptive(surface: LossSurface, slope: AscentSlope, budget: Budget) -> Value:
    """Largest rise of the training loss when weights move in proportion to their magnitudes."""
    scale = surface.theta.abs()
    ascent = ascend(surface, slope, scale, ASAM, ball=True, points=POINTS, seed=budget.seed + 43)
    return _largest(ascent, surface)


@measure(
    "sharpness.adaptive_normalised",
    chapter="predictors",
    unit="nats",
    estimator=f"max L̃(w + δ) − L̃(w), |δ_i| ≤ ρ|w_i|, ρ = {CORNER:g}, L̃ the loss of outputs of norm 1",
    source="andriushchenko2023, journee2010",
    better="smaller",
)
def adaptive_normalised(surface: LossSurface, budget: Budget) -> Value | Absent:
    """Largest rise of the loss of the outputs' directions when weights move in proportion to their magnitudes."""
    directions = surface.on_directions()
    if isinstance(directions, Absent):
        return directions
    start, scale = slope_at_weights(directions), surface.theta.abs()
    ascent = ascend(directions, start, scale, CORNER, ball=False, points=POINTS, seed=budget.seed + 43)
    return _largest(ascent, surface)


@measure(
    "sharpness.average",
    chapter="predictors",
    unit="nats",
    estimator=f"E L(w + ρ|w| ∘ ξ) − L(w), ξ ~ N(0, I), ρ = {SPREAD:g}",
    source="andriushchenko2023",
    better="smaller",
)
def average(surface: LossSurface, rise: AverageRise) -> Value:
    """Mean rise of the training loss under noise in proportion to the weights' magnitudes."""
    return _mean(rise.plain, surface)


@measure(
    "sharpness.average_normalised",
    chapter="predictors",
    unit="nats",
    estimator=f"E L̃(w + ρ|w| ∘ ξ) − L̃(w), ρ = {SPREAD:g}, L̃ the loss of outputs of norm 1",
    source="andriushchenko2023",
    better="smaller",
)
def average_normalised(surface: LossSurface, rise: AverageRise) -> Value | Absent:
    """Mean rise of the loss of the outputs' directions under noise in proportion to the weights' magnitudes."""
    return rise.normalised if isinstance(rise.normalised, Absent) else _mean(rise.normalised, surface)


def _mean(rises: Tensor, surface: LossSurface) -> Value:
    error = float(rises.std()) / math.sqrt(len(rises))
    how = f"{len(rises)} draws of the noise with both signs, {surface.how}"
    return Value.with_error(float(rises.mean()), error, surface.examples, df=len(rises) - 1, how=how)


def bound_term(squared: float, parameters: int, alpha: float, sigma: float, n: int) -> float:
    """Compute √((‖w − w₀‖² ln(2P)/(4α²) + ln(n/σ) + 10)/n).

    Args:
        squared: ‖w − w₀‖².
        parameters: P.
        alpha: half the width of the box in which the worst case costs a tenth.
        sigma: noise that costs a tenth on average.
        n: training examples.

    Returns:
        The complexity term: what the bound adds to the training error.
    """
    divergence = squared * math.log(2 * parameters) / (4 * alpha**2)
    return math.sqrt(max(0.0, divergence + math.log(n / sigma) + 10) / n)


def _of_box(
    reach: Reach | None, boxes: SmallestBoxes, surface: LossSurface, value: Callable[[float], float]
) -> dict[str, Value] | Absent:
    """A falling function of α, under the name of what the box costs."""
    if reach is None:
        reason = f"no box tried costs {COST:g} of the {boxes.target}"
        return Absent(reason, "read a network that fits its training data")
    settled = reach.settled <= SETTLED
    note = "an ascent finds at most the worst case"
    note = note if settled else f"its last round still moved α by {reach.settled:.0%}"
    how = f"corners of boxes, {surface.how}"
    return {boxes.target: Value(value(reach.alpha), surface.examples, None, how=how, reliable=settled, note=note)}


@measure(
    "sharpness.flatness",
    chapter="predictors",
    unit="1/weight units²",
    estimator="1/α², α the least with a fall of the accuracy by 0.1 (or 0.1 nats) at some |δ_i| ≤ α",
    source="jiang2020, keskar2017",
    better="smaller",
)
def flatness(surface: LossSurface, boxes: SmallestBoxes) -> dict[str, Value] | Absent:
    """How small the worst equal shift of every weight is that costs a tenth."""
    return _of_box(boxes.plain, boxes, surface, lambda alpha: alpha**-2)


@measure(
    "sharpness.magnitude_flatness",
    chapter="predictors",
    unit="1",
    estimator="1/α², α the least with a fall of the accuracy by 0.1 (or 0.1 nats) at some |δ_i| ≤ α|w_i|",
    source="jiang2020, keskar2017",
    better="smaller",
)
def magnitude_flatness(surface: LossSurface, boxes: SmallestBoxes) -> dict[str, Value] | Absent:
    """How small the worst shift in proportion to every weight is that costs a tenth.

    Unlike in Jiang et al. 2020 no constant is added to the box: it alone may cost more than a tenth.
    """
    return _of_box(boxes.magnitude, boxes, surface, lambda alpha: alpha**-2)


def _bound(
    squared: float, surface: LossSurface, boxes: SmallestBoxes, noise: ToleratedNoise
) -> dict[str, Value] | Absent:
    tolerated = noise.plain[boxes.target]
    if isinstance(tolerated, Absent):
        return tolerated
    size, n, sigma = len(surface.theta), surface.n, tolerated.sigma
    return _of_box(boxes.plain, boxes, surface, lambda alpha: bound_term(squared, size, alpha, sigma, n))


@measure(
    "sharpness.origin",
    chapter="predictors",
    unit="1",
    estimator="√((‖w‖² ln(2P)/(4α²) + ln(n/σ) + 10)/n), α of `sharpness.flatness`",
    source="jiang2020",
    better="smaller",
)
def from_origin(surface: LossSurface, boxes: SmallestBoxes, noise: ToleratedNoise) -> dict[str, Value] | Absent:
    """What a bound by the worst case in a box, with a prior around zero, adds to the training error."""
    return _bound(float(surface.theta.square().sum()), surface, boxes, noise)


@measure(
    "sharpness.start",
    chapter="predictors",
    unit="1",
    estimator="√((‖w − w₀‖² ln(2P)/(4α²) + ln(n/σ) + 10)/n), w₀ the initialisation",
    source="jiang2020",
    better="smaller",
)
def from_start(
    task: Task, space: ParameterSpace, surface: LossSurface, boxes: SmallestBoxes, noise: ToleratedNoise
) -> dict[str, Value] | Absent:
    """What a bound by the worst case in a box, with a prior around the initialisation, adds to the training error."""
    start = initial_weights(task, space)
    if isinstance(start, Absent):
        return start
    return _bound(float((surface.theta - start).square().sum()), surface, boxes, noise)
