"""How much Gaussian noise on the weights the training data tolerate, and the terms of PAC-Bayes bounds made of it.

A network that noise of standard deviation σ costs little has few bits in its weights: under a Gaussian prior the
bound's complexity is ‖w − w₀‖²/(4σ²) and a logarithm. σ is where the mean over draws of the noise reaches a given cost.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from memspace.intervals import margin
from memspace.measures.declaration import measure, provides
from memspace.measures.predictors.crossing import crossing
from memspace.measures.predictors.loss_surface import LossSurface, initial_weights
from memspace.measures.values import Budget
from memspace.passes.space import ParameterSpace
from memspace.task.task import Task
from memspace.value import Absent, Value

__all__ = ["COST", "FLOOR", "NoiseSearch", "Tolerance", "ToleratedNoise", "magnitude_term", "plain_term", "tolerance"]

COST = 0.1  # fall of the accuracy, or rise of the loss in nats, at which σ is read (Jiang et al. 2020)
FLOOR = 1e-3  # ε of the noise that goes with the weights: none is smaller
DRAWS = 6
AT_ONCE = 2**22  # numbers in the weight vectors that are evaluated together
CONSTANT = 10.0  # of the bounds, as Jiang et al. 2020 have it
TARGETS = ("accuracy", "loss")


class NoiseSearch:
    """What Gaussian noise w + σ s ∘ ξ costs, with the same draws of ξ for every σ.

    Args:
        surface: loss and accuracy.
        magnitude: whether the standard deviation is √(σ²w² + ε²) for a weight w, instead of σ for all.
        draws: of the noise.
        seed: of the draws.
    """

    def __init__(self, surface: LossSurface, *, magnitude: bool, draws: int, seed: int) -> None:
        self.surface, self.magnitude, self.draws = surface, magnitude, draws
        generator = torch.Generator().manual_seed(seed)
        self._xi = torch.randn(draws, len(surface.theta), generator=generator).to(surface.theta.device)
        loss, accuracy = surface.scores(surface.theta.unsqueeze(0))
        self._base = {"loss": float(loss), "accuracy": float(accuracy)}
        self._costs: dict[float, dict[str, Tensor]] = {}

    def deviation(self, sigma: float) -> Tensor:
        """Give the standard deviation of every weight's noise.

        Args:
            sigma: σ.

        Returns:
            (P,) weight units.
        """
        theta = self.surface.theta
        return (sigma**2 * theta**2 + FLOOR**2).sqrt() if self.magnitude else torch.full_like(theta, sigma)

    def cost(self, sigma: float) -> dict[str, Tensor]:
        """Compute what each draw costs.

        Args:
            sigma: σ.

        Returns:
            (draws,) rise of the ``loss`` in nats and fall of the ``accuracy``.
        """
        if sigma not in self._costs:
            theta, size = self.surface.theta, self.deviation(sigma)
            parts = torch.split(self._xi, max(1, AT_ONCE // len(theta)))
            scores = [self.surface.scores(theta + size * xi) for xi in parts]
            loss, accuracy = (torch.cat(part) for part in zip(*scores, strict=True))
            self._costs[sigma] = {"loss": loss - self._base["loss"], "accuracy": self._base["accuracy"] - accuracy}
        return self._costs[sigma]

    def slope(self, sigma: float, target: str) -> float:
        """Compute d cost / d log σ from the nearest σ that was evaluated, or one 10% away.

        Args:
            sigma: σ.
            target: ``"loss"`` or ``"accuracy"``.

        Returns:
            The slope of the mean over draws.
        """
        others = [s for s in self._costs if 0.05 < abs(math.log(s / sigma)) < 0.7]
        other = min(others, key=lambda s: abs(math.log(s / sigma)), default=1.1 * sigma)
        difference = self.cost(other)[target].mean() - self.cost(sigma)[target].mean()
        return float(difference) / math.log(other / sigma)


@dataclass(frozen=True)
class Tolerance:
    """The σ at which the mean cost of the noise reaches a target.

    Args:
        sigma: σ: weight units, or relative to the weights where the noise goes with them.
        error: standard error of log σ over draws of the noise.
        draws: of the noise.
    """

    sigma: float
    error: float
    draws: int

    def value(self, of: Callable[[float], float], n: int, how: str) -> Value:
        """Give a falling function of σ with the interval that the draws leave.

        Args:
            of: the function.
            n: examples the noise was tried on.
            how: particulars.

        Returns:
            Its value; not reliable where the cost does not grow with σ.
        """
        half = float(margin(self.error, self.draws - 1))
        if not math.isfinite(half):
            note = "the cost does not grow with the noise near the target"
            return Value(of(self.sigma), n, None, how=how, reliable=False, note=note)
        ends = sorted(of(self.sigma * math.exp(sign * half)) for sign in (1, -1))
        return Value(of(self.sigma), n, (ends[0], ends[1]), how=how)


@dataclass(frozen=True)
class ToleratedNoise:
    """Tolerated noise by target.

    Args:
        plain: ``"accuracy"`` and ``"loss"`` → σ of equal noise on every weight.
        magnitude: the same for noise that goes with the weights' magnitudes.
    """

    plain: Mapping[str, Tolerance | Absent]
    magnitude: Mapping[str, Tolerance | Absent]


def tolerance(noise: NoiseSearch, target: str, start: float) -> Tolerance | Absent:
    """Find the noise that costs 0.1 of the accuracy, or 0.1 nats.

    Args:
        noise: on the weights.
        target: ``"loss"`` or ``"accuracy"``.
        start: σ to begin with.

    Returns:
        σ with its error over draws; absent where no σ costs that much, or every one costs more.
    """
    sigma = crossing(lambda s: float(noise.cost(s)[target].mean()), COST, start)
    if sigma is None:
        reason = f"no noise on the weights costs {COST:g} of the {target}" + (" in nats" if target == "loss" else "")
        return Absent(reason, "read a network that fits its training data")
    spread = float(noise.cost(sigma)[target].std()) / math.sqrt(noise.draws)
    slope = noise.slope(sigma, target)
    return Tolerance(sigma, spread / slope if slope > 0 else math.inf, noise.draws)


@provides()
def tolerated_noise(task: Task, surface: LossSurface, budget: Budget) -> ToleratedNoise | Absent:
    """Search the noise that costs 0.1 of the accuracy and the noise that costs 0.1 nats."""
    size = float(surface.theta.square().mean().sqrt())
    if not size > 0:
        return Absent("all weights are zero", "read a trained network")
    targets = TARGETS if task.likelihood.classifies else ("loss",)
    parts = []
    for magnitude in (False, True):
        noise = NoiseSearch(surface, magnitude=magnitude, draws=DRAWS, seed=budget.seed + 41)
        start = 0.2 if magnitude else 0.2 * size
        parts.append({target: tolerance(noise, target, start) for target in reversed(targets)})
    return ToleratedNoise(*parts)


def plain_term(squared: float, sigma: float, n: int) -> float:
    """Compute √((‖w − w₀‖²/(4σ²) + ln(n/σ) + 10)/n).

    Args:
        squared: ‖w − w₀‖².
        sigma: tolerated noise σ.
        n: training examples.

    Returns:
        The complexity term: what the bound adds to the training error.
    """
    return _root(squared / (4 * sigma**2), sigma, n)


def magnitude_term(weights: Tensor, moved: Tensor, sigma: float, n: int) -> float:
    """Compute √((¼ Σ_i ln(s²/s_i²) + ln(n/σ) + 10)/n), s_i² = ε² + σ²w_i² and s² the mean of s_i² + (w_i − w₀ᵢ)².

    ½ Σ ln(s²/s_i²) is the divergence of the noisy weights from the prior N(w₀, s²I) of the best s. With w₀ = 0 it is
    the formula of Jiang et al. 2020. For another w₀ theirs has w − w₀ in the place of w in s_i, which belongs to noise
    that goes with the distance.

    Args:
        weights: (P,) w.
        moved: (P,) w − w₀.
        sigma: tolerated noise σ relative to the weights.
        n: training examples.

    Returns:
        The complexity term: what the bound adds to the training error.
    """
    variances = FLOOR**2 + sigma**2 * weights**2
    prior = (variances + moved**2).mean()
    return _root(float((prior / variances).log().sum()) / 4, sigma, n)


def _root(divergence: float, sigma: float, n: int) -> float:
    return math.sqrt(max(0.0, divergence + math.log(n / sigma) + CONSTANT) / n)


def _family(
    tolerances: Mapping[str, Tolerance | Absent], surface: LossSurface, of: Callable[[float], float]
) -> dict[str, Value | Absent]:
    how = f"{DRAWS} draws of the noise, {surface.how}"
    return {
        target: tolerated if isinstance(tolerated, Absent) else tolerated.value(of, surface.examples, how)
        for target, tolerated in tolerances.items()
    }


@measure(
    "pac_bayes.flatness",
    chapter="predictors",
    unit="1/weight units²",
    estimator="1/σ², σ the noise on all weights that costs 0.1 of the accuracy, or 0.1 nats",
    source="jiang2020, dziugaite2020",
    better="smaller",
)
def flatness(surface: LossSurface, noise: ToleratedNoise) -> dict[str, Value | Absent]:
    """How little equal noise on every weight the training data tolerate."""
    return _family(noise.plain, surface, lambda sigma: sigma**-2)


@measure(
    "pac_bayes.magnitude_flatness",
    chapter="predictors",
    unit="1",
    estimator="1/σ², noise of variance σ²w² + 10⁻⁶ that costs 0.1 of the accuracy, or 0.1 nats",
    source="jiang2020, dziugaite2020",
    better="smaller",
)
def magnitude_flatness(surface: LossSurface, noise: ToleratedNoise) -> dict[str, Value | Absent]:
    """How little noise in proportion to every weight the training data tolerate."""
    return _family(noise.magnitude, surface, lambda sigma: sigma**-2)


@measure(
    "pac_bayes.origin",
    chapter="predictors",
    unit="1",
    estimator="√((‖w‖²/(4σ²) + ln(n/σ) + 10)/n)",
    source="jiang2020, dziugaite2020",
    better="smaller",
)
def from_origin(surface: LossSurface, noise: ToleratedNoise) -> dict[str, Value | Absent]:
    """What a PAC-Bayes bound with a prior around zero adds to the training error."""
    squared = float(surface.theta.square().sum())
    return _family(noise.plain, surface, lambda sigma: plain_term(squared, sigma, surface.n))


@measure(
    "pac_bayes.start",
    chapter="predictors",
    unit="1",
    estimator="√((‖w − w₀‖²/(4σ²) + ln(n/σ) + 10)/n), w₀ the initialisation",
    source="jiang2020, dziugaite2020",
    better="smaller",
)
def from_start(
    task: Task, space: ParameterSpace, surface: LossSurface, noise: ToleratedNoise
) -> dict[str, Value | Absent] | Absent:
    """What a PAC-Bayes bound with a prior around the initialisation adds to the training error."""
    start = initial_weights(task, space)
    if isinstance(start, Absent):
        return start
    squared = float((surface.theta - start).square().sum())
    return _family(noise.plain, surface, lambda sigma: plain_term(squared, sigma, surface.n))


@measure(
    "pac_bayes.magnitude_origin",
    chapter="predictors",
    unit="1",
    estimator="√((¼ Σ ln(s²/s_i²) + ln(n/σ) + 10)/n), s_i² = σ²w_i² + 10⁻⁶, s² the mean of s_i² + w_i²",
    source="jiang2020, dziugaite2020",
    better="smaller",
)
def magnitude_from_origin(surface: LossSurface, noise: ToleratedNoise) -> dict[str, Value | Absent]:
    """What a PAC-Bayes bound with noise in proportion to the weights and a prior around zero adds."""
    theta = surface.theta
    return _family(noise.magnitude, surface, lambda sigma: magnitude_term(theta, theta, sigma, surface.n))


@measure(
    "pac_bayes.magnitude_start",
    chapter="predictors",
    unit="1",
    estimator="√((¼ Σ ln(s²/s_i²) + ln(n/σ) + 10)/n), s_i² = σ²w_i² + 10⁻⁶, s² the mean of s_i² + (w_i − w₀ᵢ)²",
    source="jiang2020, dziugaite2020",
    better="smaller",
)
def magnitude_from_start(
    task: Task, space: ParameterSpace, surface: LossSurface, noise: ToleratedNoise
) -> dict[str, Value | Absent] | Absent:
    """What a PAC-Bayes bound with noise in proportion to the weights and a prior around the initialisation adds."""
    start = initial_weights(task, space)
    if isinstance(start, Absent):
        return start
    moved = surface.theta - start
    return _family(noise.magnitude, surface, lambda s: magnitude_term(surface.theta, moved, s, surface.n))
