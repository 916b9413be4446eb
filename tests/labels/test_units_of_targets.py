"""What is said of a regression does not depend on the unit its targets are written in."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from memspace.auditing.audit import audit_task
from memspace.auditing.leave_one_out import leave_one_out
from memspace.auditing.plan import AuditSettings
from memspace.measurement import Measurement, Unmeasured
from memspace.task.likelihood import Gaussian
from memspace.task.task import Task

N, D = 60, 12


def line_in(unit: float) -> Task:
    """A line by least squares whose targets come in a unit; its refits know the truth, whose loss is to be met."""
    generator = torch.Generator().manual_seed(3)
    x = torch.randn(N, D, generator=generator, dtype=torch.float64)
    truth = unit * torch.randn(D, 1, generator=generator, dtype=torch.float64)
    y = x @ truth + unit * torch.randn(N, 1, generator=generator, dtype=torch.float64)

    def line(weight: Tensor) -> nn.Module:
        model = nn.Linear(D, 1, bias=False).double()
        with torch.no_grad():
            model.weight.copy_(weight.T)
        return model

    fitted = line(torch.linalg.lstsq(x, y).solution)
    return Task(fitted, (x, y), Gaussian(), refit=lambda _kept, _seed: line(truth))


def test_a_unit_that_is_no_power_of_ten_changes_nothing() -> None:
    one, seven = (audit_task(line_in(unit), AuditSettings()) for unit in (1.0, 7.0))
    assert one.measurement("damping").reliable
    assert seven.measurement("damping").value == pytest.approx(one.measurement("damping").value / 49, rel=1e-6)
    for name in ("regression.r2_loo", "outliers.share", "memory.loo_loss_rise"):
        assert seven.measurement(name).value == pytest.approx(one.measurement(name).value, rel=1e-6, abs=1e-12)
    sigma = one.measurement("regression.sigma").value
    assert seven.measurement("regression.sigma").value == pytest.approx(7 * sigma, rel=1e-6)
    p = [r.tables["examples"]["p_outlier"] for r in (one, seven)]
    assert p[1] == pytest.approx(p[0], rel=1e-5, abs=1e-12)


@pytest.mark.parametrize("folds", [0, 5])
@pytest.mark.parametrize("unit", [0.01, 7.0])
def test_leave_one_out_expects_the_same_of_a_regression_in_any_unit(unit: float, folds: int) -> None:
    """The density's nats are moved by log(unit), ends and all; the explained variance stays."""
    one, other = (leave_one_out(line_in(u), folds=folds) for u in (1.0, unit))
    moved = torch.tensor(unit).log().item()
    assert other.test_loss.value == pytest.approx(one.test_loss.value + moved, rel=1e-5, abs=1e-5)
    assert one.test_loss.interval is not None
    assert other.test_loss.interval == pytest.approx([end + moved for end in one.test_loss.interval], abs=1e-4)
    assert other.test_loss.interval[0] < other.test_loss.value < other.test_loss.interval[1]
    assert isinstance(one.explained, Measurement)
    assert isinstance(other.explained, Measurement)
    assert other.explained.value == pytest.approx(one.explained.value, rel=1e-6)
    assert 0.5 < one.explained.value < 1


def test_refits_of_a_regression_are_read_as_numbers() -> None:
    """The held-out squared error of leave_one_out's own refits is that of the true line, and no class is made of it."""
    task = line_in(1.0)
    found = leave_one_out(task, folds=5)
    assert found.damping.reliable
    assert task.refit is not None
    away = task.train.labels() - task.refit(torch.arange(N), 0)(task.train.batch(range(N)).x).detach()
    law = task.likelihood
    assert isinstance(law, Gaussian)
    assert isinstance(law.sigma, float)
    assert found.damping.target == pytest.approx(float(away.square().mean()) / law.sigma**2 / 2, rel=1e-6)


def test_the_variance_explained_is_not_asked_of_a_classifier() -> None:
    x, y = torch.randn(30, 3), torch.arange(30) % 2
    assert isinstance(leave_one_out(Task(nn.Linear(3, 2), (x, y)), folds=0).explained, Unmeasured)


def test_the_decay_of_a_fitted_law_keeps_the_optimum_where_it_is() -> None:
    """A ridge regression is the optimum of half the squared error and γ, so of the fitted law's nats and γ/σ²."""
    generator = torch.Generator().manual_seed(5)
    x = torch.randn(N, D, generator=generator, dtype=torch.float64)
    y = 3 * x @ torch.randn(D, 1, generator=generator, dtype=torch.float64)
    y = y + torch.randn(N, 1, generator=generator, dtype=torch.float64)
    gamma = 0.3
    model = nn.Linear(D, 1, bias=False).double()
    with torch.no_grad():
        model.weight.copy_(torch.linalg.solve(x.T @ x / N + gamma * torch.eye(D).double(), x.T @ y / N).T)
    task = Task(model, (x, y), Gaussian(), decay=gamma)
    assert task.decay is not None
    loss = task.likelihood.nll(model(x), y).mean() + task.decay / 2 * model.weight.square().sum()
    (slope,) = torch.autograd.grad(loss, model.weight)
    assert float(slope.norm()) < 1e-3 * task.decay * float(
        model.weight.detach().norm()
    )  # the decay is kept to four digits
