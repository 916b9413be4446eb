"""Choosing the damping: where the estimate crosses the truth, or where the evidence has its fixed point."""

from __future__ import annotations

import math

import pytest
import torch

from memspace.measures.damping import GRID, DampingChoice, damping_unit, expected_loss, first_choice
from memspace.metric.spectral import Dense


def _estimates(at: float, target: float, slope: float = 0.3) -> torch.Tensor:
    """Losses that fall with γ as a power and cross ``target`` at ``at``."""
    means = [target * (g / at) ** -slope for g in GRID]
    return torch.tensor(means, dtype=torch.float64)[:, None] * torch.tensor([[0.5, 1.0, 1.5]])


@pytest.mark.parametrize("at", [2e-4, 1e-3, 0.0375, 0.6])
def test_the_crossing_is_found(at: float) -> None:
    target = torch.tensor([0.2, 0.4, 0.9])
    choice = DampingChoice.matched(_estimates(at, 0.5), GRID, target, "other networks")
    assert choice.reliable
    assert choice.value == pytest.approx(at, rel=1e-6)
    assert choice.target == pytest.approx(0.5)
    assert choice.target_error == pytest.approx(float(target.std()) / math.sqrt(3))
    assert choice.grid == GRID
    assert len(choice.estimate) == len(GRID)
    assert "other networks" in choice.statement


def test_the_last_crossing_counts() -> None:
    means = torch.full((len(GRID), 1), 0.1, dtype=torch.float64)
    means[0] = 1.0
    means[8] = 1.0  # a second bump above the target
    choice = DampingChoice.matched(means, GRID, torch.full((5,), 0.5), "x")
    assert GRID[8] < choice.value < GRID[9]


@pytest.mark.parametrize(("level", "end"), [(0.1, 0), (0.9, -1)])
def test_out_of_reach_is_said(level: float, end: int) -> None:
    choice = DampingChoice.matched(torch.full((len(GRID), 4), level), GRID, torch.full((4,), 0.5), "x")
    assert not choice.reliable
    assert choice.value == GRID[end]
    assert "end of the grid" in choice.statement


def test_what_is_read_at_a_damping_nobody_found_is_marked() -> None:
    assert not DampingChoice.matched(torch.full((len(GRID), 4), 0.9), GRID, torch.full((4,), 0.5), "x").found


def test_no_crossing_within_the_paired_error_is_a_match() -> None:
    """The losses differ by less than the pairs' spread allows to tell, though nothing crosses."""
    generator = torch.Generator().manual_seed(0)
    target = torch.rand(200, generator=generator, dtype=torch.float64) + 0.5
    near = target + 0.3 * torch.randn(200, generator=generator, dtype=torch.float64)
    near = near - (near - target).mean() + 0.01
    choice = DampingChoice.matched(near.expand(len(GRID), 200), GRID, target, "x")
    assert choice.reliable
    assert choice.found
    assert not DampingChoice.matched((near + 0.2).expand(len(GRID), 200), GRID, target, "x").reliable


def test_expected_loss_is_cross_entropy() -> None:
    f = torch.randn(6, 4, dtype=torch.float64)
    y = torch.tensor([0, 1, 2, 3, 0, 1])
    onehot = torch.nn.functional.one_hot(y, 4).double()
    assert torch.allclose(expected_loss(f, onehot), torch.nn.functional.cross_entropy(f, y, reduction="none"))
    flat = torch.full((6, 4), 0.25, dtype=torch.float64)
    assert bool((expected_loss(f, flat) >= math.log(4) - 1e-12).all())


def test_the_evidence_of_ridge_regression_has_its_fixed_point() -> None:
    torch.manual_seed(0)
    n, p, alpha = 400, 20, 25.0
    x = torch.randn(n, p, dtype=torch.float64) * torch.logspace(-1, 0.5, p, dtype=torch.float64)
    truth = torch.randn(p, dtype=torch.float64) / math.sqrt(alpha)
    y = x @ truth + torch.randn(n, dtype=torch.float64)
    metric = Dense.of(x.t() @ x / n, "exact")
    gamma = alpha / n
    for _ in range(100):  # MacKay's iteration: each weight at the ridge solution of the present damping
        theta = torch.linalg.solve(x.t() @ x + n * gamma * torch.eye(p, dtype=torch.float64), x.t() @ y)
        gamma = DampingChoice.evidence(metric, theta, n).value
    choice = DampingChoice.evidence(metric, theta, n)
    effective = metric.effective_dimension(choice.value).value
    assert n * choice.value * float(theta.square().sum()) == pytest.approx(effective, rel=1e-6)
    values = torch.linalg.eigvalsh(x.t() @ x)
    log_evidence = []
    for a in (0.8, 1.0, 1.25):  # the evidence itself, y ~ N(0, I + XXᵀ/α), is largest there
        strength = n * choice.value * a
        w = torch.linalg.solve(x.t() @ x + strength * torch.eye(p, dtype=torch.float64), x.t() @ y)
        fit = float((y - x @ w).square().sum() + strength * w.square().sum())
        log_evidence.append(-0.5 * fit - 0.5 * float(torch.log1p(values / strength).sum()))
    assert log_evidence[1] == max(log_evidence)
    assert n * choice.value == pytest.approx(alpha, rel=0.6)
    assert choice.rule == "evidence"
    assert "evidence" in choice.statement


def test_zero_weights_have_no_evidence_maximum() -> None:
    metric = Dense.of(torch.eye(3, dtype=torch.float64), "exact")
    choice = DampingChoice.evidence(metric, torch.zeros(3), 10)
    assert not choice.reliable
    assert "no maximum" in choice.statement


@pytest.mark.parametrize("unit", [1e-9, 1 / 49, 3.0, 1e9])
def test_the_grids_unit_moves_with_the_metrics(unit: float) -> None:
    """Of eigenvalues 4, 2 and 0 it is ten times 3, and follows a factor without rounding."""
    matrix = torch.diag(torch.tensor([4.0, 2.0, 0.0], dtype=torch.float64))
    assert damping_unit(Dense.of(unit * matrix)) == pytest.approx(30 * unit, rel=1e-9)
    assert damping_unit(Dense.of(0 * matrix)) == 1


def test_the_first_rule_that_applies_chooses_and_no_later_one_is_asked() -> None:
    by_time = DampingChoice.training_time(20.0, 0.01, calibrated=False)

    def never() -> DampingChoice:
        raise AssertionError("a rule after the one that applies was asked")

    assert first_choice(0.3, never, otherwise=never).rule == "given"
    assert first_choice(None, lambda: None, lambda: by_time, never, otherwise=never) is by_time
    assert first_choice(None, lambda: None, otherwise=lambda: by_time) is by_time
    assert by_time.value == pytest.approx(1 / 20 + 0.01)
    assert "uncalibrated" in by_time.statement
    assert DampingChoice.training_time(20.0, 0.01, calibrated=True, positions=3).value == pytest.approx(0.18)
