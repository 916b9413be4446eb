"""Choosing the damping γ of (F + γI)⁻¹ from the data.

With a way to retrain: γ is where the leave-one-out estimate agrees with networks that really did not see the examples
(held-out refits). Without one: the maximum of the Laplace evidence (MacKay 1992), known to leave the leave-one-out
estimate too high, and said so.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from memspace.intervals import margin
from memspace.metric.metric import FisherMetric

__all__ = [
    "GRID",
    "DampingChoice",
    "damping_unit",
    "evidence_damping",
    "evidence_root",
    "expected_loss",
    "match_damping",
]

GRID = tuple(10 ** (k / 4) for k in range(-16, 1))  # γ from 1e-4 to 1 relative units, four per decade


@dataclass(frozen=True)
class DampingChoice:
    """The damping used, the rule that chose it, and the criterion over a grid where there was one.

    Args:
        value: γ.
        rule: ``given``, ``decay``, ``training time``, ``evidence``, ``held-out refit`` or ``group agreement``.
        reliable: False where the rule is known to be biased or the target was out of the grid's reach.
        statement: one sentence for the report.
        found: whether the rule found a γ at all; where not, whatever is read at γ is not to be trusted.
        criterion, unit: what was compared at every γ of the grid, in which unit; empty without a grid.
        grid, estimate: γ values and the criterion at each.
        target, target_error: the criterion's value wanted, with its standard error: the held-out loss that
            leave-one-out is matched to, the greatest agreement.
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
        """The user's own γ."""
        return DampingChoice(value, "given", True, f"γ = {value:.2g} was given")


def expected_loss(f: Tensor, truth: Tensor) -> Tensor:
    """Cross-entropy against a distribution over the true class, Σ_k truth_k · −log softmax(f)_k, (n,)."""
    return -(torch.log_softmax(f.double(), -1) * truth).sum(-1)


def match_damping(estimates: Tensor, grid: tuple[float, ...], target: Tensor, what: str) -> DampingChoice:
    """γ where the mean leave-one-out estimate crosses the mean held-out loss.

    Args:
        estimates: (D, m) leave-one-out losses of the held-out examples at every γ of the grid (ascending).
        target: (m,) losses of the same examples under networks trained without them.

    Where nothing crosses, the end of the grid is taken: as sound where the two differ there by no more than the paired
    error of their difference, else as not found.
    """
    goal = float(target.mean())
    error = float(target.std() / math.sqrt(len(target))) if len(target) > 1 else math.nan
    means = estimates.double().mean(1)
    # The estimate falls as γ grows; work in logs and take the last crossing from above.
    difference = torch.log(means.clamp_min(1e-12)) - math.log(max(goal, 1e-12))
    above = (difference > 0).nonzero().flatten()
    crossed = len(above) > 0 and int(above[-1]) < len(grid) - 1
    if crossed:
        k = int(above[-1])
        d0, d1 = float(difference[k]), float(difference[k + 1])
        share = d0 / (d0 - d1)
        value = math.exp(math.log(grid[k]) + share * (math.log(grid[k + 1]) - math.log(grid[k])))
        reliable = True
    else:
        k = 0 if len(above) == 0 else len(grid) - 1
        value, reliable = grid[k], _alike(estimates[k], target)
    statement = (
        f"γ = {value:.2g}: the leave-one-out estimate then agrees with {what} on {len(target)} examples"
        if reliable
        else f"γ = {value:.2g} is the end of the grid: nowhere in it does the leave-one-out estimate agree with {what}"
    )
    return DampingChoice(
        value,
        "held-out refit",
        reliable,
        statement,
        reliable,
        "mean loss of the held-out examples",
        "nats",
        grid,
        tuple(float(m) for m in means),
        goal,
        error,
    )


def _alike(estimate: Tensor, target: Tensor) -> bool:
    """Whether the interval of the mean difference of paired samples holds 0."""
    if estimate.shape != target.shape or len(target) < 10:
        return False
    apart = estimate.double() - target.double()
    return bool(apart.mean().abs() <= margin(apart.std() / math.sqrt(len(apart)), len(apart) - 1))


def damping_unit(metric: FisherMetric) -> float:
    """Ten mean eigenvalues of those that are not zero: the grid moves with the metric's unit."""
    trace = metric.trace().value
    if trace <= 0:
        return 1.0
    return 10 * trace / max(metric.effective_dimension(1e-12 * trace).value, 1.0)


def evidence_damping(metric: FisherMetric, theta: Tensor, n: int) -> DampingChoice:
    """γ = α/N of greatest Laplace evidence under N(0, I/α): the fixed point α‖θ‖² = effective parameters."""
    squared = float(theta.double().square().sum())
    value, reliable = evidence_root(lambda gamma: metric.effective_dimension(gamma).value, squared, n)
    return DampingChoice(
        value,
        "evidence",
        False,
        f"γ = {value:.2g} maximises the Laplace evidence; leave-one-out estimates made with it are known to "
        "come out too high (hand over a way to refit for a calibrated choice)"
        if reliable
        else "the evidence has no maximum in reach; γ is the end of the search range",
        reliable,
    )


def evidence_root(dimension: Callable[[float], float], squared: float, n: int) -> tuple[float, bool]:
    """(γ, found): where Nγ‖θ‖² meets the effective dimension at γ; ``squared``: ‖θ‖²."""

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
