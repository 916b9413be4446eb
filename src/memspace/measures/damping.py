"""Choosing the damping γ of (F + γI)⁻¹ from the data.

With a way to retrain, γ is where the leave-one-out estimate agrees with networks trained without the examples,
or where predicted changes agree with networks retrained on parts of the data. Without one it is the training's own
scale or the maximum of the Laplace evidence (MacKay 1992), which is known to leave the leave-one-out estimate too
high, and says so. Every choice is made here, by the rule that makes it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from memspace.intervals import margin
from memspace.metric.metric import FisherMetric

__all__ = ["GRID", "DampingChoice", "Rule", "damping_unit", "evidence_root", "expected_loss", "first_choice"]

GRID = tuple(10 ** (k / 4) for k in range(-16, 1))  # γ from 1e-4 to 1 relative units, four per decade
NO_REFIT = "pass a way to refit for a calibrated choice"


@dataclass(frozen=True)
class DampingChoice:
    """The damping used, the rule that chose it, and the criterion over a grid where there was one.

    Args:
        value: γ.
        rule: ``given``, ``decay``, ``training time``, ``evidence``, ``held-out refit`` or ``group agreement``.
        reliable: False where the rule is known to be biased or the target was out of the grid's reach.
        statement: one sentence for the report.
        found: whether the rule found a γ at all; where not, whatever is read at γ is not to be trusted.
        criterion: what was compared at every γ of the grid; empty without a grid.
        unit: of the criterion.
        grid: γ values.
        estimate: the criterion at each.
        target: the criterion's value wanted: the held-out loss that leave-one-out is matched to, the greatest
            agreement.
        target_error: its standard error.
    """

    value: float
    rule: str
    reliable: bool
    statement: str
    found: bool = True
    criterion: str = ""
    unit: str = ""
    grid: tuple[float, ...] = ()
    estimate: tuple[float, ...] = ()
    target: float = math.nan
    target_error: float = math.nan

    @staticmethod
    def given(value: float) -> DampingChoice:
        """Take the user's own γ.

        Args:
            value: γ.

        Returns:
            the choice; it is reliable.
        """
        return DampingChoice(value=value, rule="given", reliable=True, statement=f"γ = {value:.2g} was given")

    @staticmethod
    def decay(value: float, known_by: str) -> DampingChoice:
        """Take the weight decay of a stationary training whose outputs are affine in the weights.

        Args:
            value: γ of the penalty γ/2·‖θ‖².
            known_by: ``given``, or how else the decay is known.

        Returns:
            the choice; it is reliable: (F + γI)⁻¹/N is the inverse Hessian.
        """
        return DampingChoice(
            value=value,
            rule="decay",
            reliable=True,
            statement=f"γ = {value:.2g} is the training's own weight decay ({known_by}): the outputs are affine in the "
            "weights, which minimise the penalised loss, so that leave-one-out is one Newton step from exact",
        )

    @staticmethod
    def training_time(time: float, decay: float, *, calibrated: bool, positions: int = 1) -> DampingChoice:
        """Take γ = positions · (1/T + λ), the scale that gradient descent of learning-rate time T resolves.

        Descent answers a change of the data along curvature s by (1 − e^{−T(s+λ)})/(s+λ), a damped step by 1/(s + γ);
        with this γ they agree at both ends and never differ by more than a factor of 1.3 (Ali et al. 2019;
        Bae et al. 2024).

        Args:
            time: T, the sum of the learning rates over the training's steps; positive.
            decay: λ, of the weights.
            calibrated: whether the question is one of the training's own response, where this γ is right; else the
                choice is marked.
            positions: of a sequence, where the loss is summed over them.

        Returns:
            the choice.
        """
        value = positions * (1 / time + decay)
        statement = f"γ = {value:.2g}: one over the training's learning-rate time {time:.3g}, plus its decay {decay:g}"
        if not calibrated:
            statement += "; uncalibrated: pass a way to retrain (Task.training or refit) to have it measured"
        return DampingChoice(value=value, rule="training time", reliable=calibrated, statement=statement)

    @staticmethod
    def evidence(metric: FisherMetric, theta: Tensor, n: int) -> DampingChoice:
        """Take γ = α/N of greatest Laplace evidence under N(0, I/α): α‖θ‖² = effective parameters.

        Args:
            metric: F of the training data.
            theta: (P,) weights.
            n: training examples N.

        Returns:
            the choice; never reliable.
        """
        squared = float(theta.double().square().sum())
        value, inside = evidence_root(lambda gamma: metric.effective_dimension(gamma).value, squared, n)
        return DampingChoice(
            value=value,
            rule="evidence",
            reliable=False,
            statement=f"γ = {value:.2g} maximises the Laplace evidence; leave-one-out estimates made with it are known "
            f"to come out too high ({NO_REFIT})"
            if inside
            else "the evidence has no maximum in reach; γ is the end of the search range",
            found=inside,
        )

    @staticmethod
    def matched(estimates: Tensor, grid: tuple[float, ...], target: Tensor, what: str) -> DampingChoice:
        """Take γ where the mean leave-one-out estimate crosses the mean held-out loss.

        Where nothing crosses, the end of the grid is taken: as sound where the two differ there by no more than the
        paired error of their difference, else as not found.

        Args:
            estimates: (D, m) leave-one-out losses of the held-out examples at every γ of the grid, nats.
            grid: γ values, ascending.
            target: (m,) losses of the same examples under networks trained without them, nats.
            what: those networks, for people.

        Returns:
            the choice, with both losses over the grid.
        """
        goal = float(target.mean())
        means = estimates.double().mean(1)
        k, value = _crossing(means, grid, goal)
        reliable = value is not None or _alike(estimates[k], target)
        value = grid[k] if value is None else value
        return DampingChoice(
            value=value,
            rule="held-out refit",
            reliable=reliable,
            statement=f"γ = {value:.2g}: the leave-one-out estimate then agrees with {what} on {len(target)} examples"
            if reliable
            else f"γ = {value:.2g} is the end of the grid: nowhere in it does the leave-one-out estimate agree with "
            f"{what}",
            found=reliable,
            criterion="mean loss of the held-out examples",
            unit="nats",
            grid=grid,
            estimate=tuple(float(m) for m in means),
            target=goal,
            target_error=float(target.std() / math.sqrt(len(target))) if len(target) > 1 else math.nan,
        )

    @staticmethod
    def agreement(curve: Tensor, grid: Sequence[float], error: float, networks: int, probes: int) -> DampingChoice:
        """Take γ of greatest mean agreement between predicted and retrained outcomes, by a parabola in log γ.

        Args:
            curve: (D,) mean correlation over probes at every γ of the grid.
            grid: γ values, ascending.
            error: standard error of the greatest agreement.
            networks: how many were retrained.
            probes: outcomes they were compared on.

        Returns:
            the choice; reliable where the greatest agreement is inside the grid and more than twice its error.
        """
        k = int(curve.argmax())
        inside, value = 0 < k < len(grid) - 1, grid[k]
        if inside:
            a, b, c = (float(curve[k + d]) for d in (-1, 0, 1))
            shift = 0.5 * (a - c) / (a - 2 * b + c) if a - 2 * b + c < 0 else 0.0
            value = grid[k] * (grid[k + 1] / grid[k]) ** max(-0.5, min(0.5, shift))
        best = float(curve[k])
        reliable = inside and best > 2 * error
        statement = (
            f"γ = {value:.2g}: predicted and real outcomes of {networks} networks trained on halves of the data agree "
            f"most there (mean correlation {best:.2f} ± {error:.2f} over {probes} probes)"
        )
        if not inside:
            statement += "; that is the end of the grid"
        elif not reliable:
            statement += "; no more than noise"
        return DampingChoice(
            value=value,
            rule="group agreement",
            reliable=reliable,
            statement=statement,
            criterion="mean correlation with differences between halves",
            unit="1",
            grid=tuple(grid),
            estimate=tuple(float(c) for c in curve),
            target=best,
            target_error=error,
        )


Rule = Callable[[], DampingChoice | None]


def first_choice(given: float | None, *rules: Rule, otherwise: Callable[[], DampingChoice]) -> DampingChoice:
    """Return the γ given, else the choice of the first rule that applies.

    Args:
        given: the user's own γ, or None.
        rules: each returns a choice, or None where it does not apply; run in turn until one applies.
        otherwise: the rule that always applies.

    Returns:
        the choice.
    """
    if given is not None:
        return DampingChoice.given(given)
    choices = (rule() for rule in rules)
    return next((choice for choice in choices if choice is not None), None) or otherwise()


def expected_loss(f: Tensor, truth: Tensor) -> Tensor:
    """Compute the cross-entropy against a distribution over the true class, Σ_k truth_k · −log softmax(f)_k.

    Args:
        f: (n, C) outputs.
        truth: (n, C) probabilities.

    Returns:
        (n,) nats, float64.
    """
    return -(torch.log_softmax(f.double(), -1) * truth).sum(-1)


def _crossing(means: Tensor, grid: tuple[float, ...], goal: float) -> tuple[int, float | None]:
    """(place in the grid, γ of the last crossing from above); None where nothing crosses: the place is then an end.

    The estimate falls as γ grows; logarithms of both are interpolated.
    """
    difference = torch.log(means.clamp_min(1e-12)) - math.log(max(goal, 1e-12))
    above = (difference > 0).nonzero().flatten()
    if len(above) == 0 or int(above[-1]) == len(grid) - 1:
        return (0 if len(above) == 0 else len(grid) - 1), None
    k = int(above[-1])
    d0, d1 = float(difference[k]), float(difference[k + 1])
    share = d0 / (d0 - d1)
    return k, math.exp(math.log(grid[k]) + share * (math.log(grid[k + 1]) - math.log(grid[k])))


def _alike(estimate: Tensor, target: Tensor) -> bool:
    """Whether the interval of the mean difference of paired samples holds 0."""
    if estimate.shape != target.shape or len(target) < 10:
        return False
    apart = estimate.double() - target.double()
    return bool(apart.mean().abs() <= margin(apart.std() / math.sqrt(len(apart)), len(apart) - 1))


def damping_unit(metric: FisherMetric) -> float:
    """Return ten times the mean non-zero eigenvalue, so that the grid scales with the metric's unit.

    Args:
        metric: F.

    Returns:
        γ of one relative unit; 1 where F is zero.
    """
    trace = metric.trace().value
    if trace <= 0:
        return 1.0
    return 10 * trace / max(metric.effective_dimension(1e-12 * trace).value, 1.0)


def evidence_root(dimension: Callable[[float], float], squared: float, n: int) -> tuple[float, bool]:
    """Find where Nγ‖θ‖² meets the effective dimension at γ.

    Args:
        dimension: γ ↦ effective dimension.
        squared: ‖θ‖².
        n: training examples N.

    Returns:
        γ, and whether there is one in reach.
    """

    def gap(log_gamma: float) -> float:
        gamma = math.exp(log_gamma)
        return n * gamma * squared - dimension(gamma)

    # Nγ‖θ‖² never exceeds the rank, which bounds γ in whatever unit the weights have.
    rank = dimension(1e-30)
    top = rank / (n * squared) if squared > 0 else 0.0
    low, high = (math.log(top) - 40, math.log(top) + 1e-9) if top > 0 else (math.log(1e-8), math.log(1e3))
    value, reliable = _root(gap, low, high)
    return math.exp(value), reliable


def _root(gap: Callable[[float], float], low: float, high: float) -> tuple[float, bool]:
    if gap(low) > 0 or gap(high) < 0:
        return (low, False) if gap(low) > 0 else (high, False)
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if gap(middle) < 0 else (low, middle)
    return (low + high) / 2, True
