"""Leave-one-out by leverage: exact where that is a theorem; calibration estimates; what the API gives."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from memspace.audit.leave_one_out import leave_one_out
from memspace.audit.plan import Settings
from memspace.errors import TaskError
from memspace.measurement import Measurement, Unmeasured
from memspace.measures.calibration import calibration_error
from memspace.task.likelihood import Gaussian
from memspace.task.task import Task
from tests.labels.test_label_issues import planted


def _regression(alpha: float, n: int = 30, d: int = 5) -> tuple[Task, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(3)
    x, y = (torch.randn(n, k, generator=generator, dtype=torch.float64) for k in (d, 1))
    model = nn.Linear(d, 1, bias=False).double()
    with torch.no_grad():
        model.weight.copy_(torch.linalg.solve(x.T @ x + alpha * torch.eye(d), x.T @ y).T)
    return Task(model, (x, y), likelihood=Gaussian(1.0)), x, y


@pytest.mark.parametrize("alpha", [1e-5, 0.5, 20.0])
def test_linear_and_ridge_regression_are_exact(alpha: float) -> None:
    """Residual without the example: r/(1 − h), h = xᵀ(XᵀX + αI)⁻¹x."""
    task, x, y = _regression(alpha)
    found = leave_one_out(task, settings=Settings(damping=alpha / len(x), representation="dual"))
    h = (x @ torch.linalg.inv(x.T @ x + alpha * torch.eye(5, dtype=torch.float64)) * x).sum(1)
    residual = (y - found.f.double())[:, 0] / (1 - h)
    assert torch.allclose((y - found.loo_f)[:, 0], residual, rtol=1e-5, atol=1e-7)
    keep = torch.arange(len(x)) != 4
    solved = torch.linalg.solve(x[keep].T @ x[keep] + alpha * torch.eye(5, dtype=torch.float64), x[keep].T @ y[keep])
    assert float(found.loo_f[4]) == pytest.approx(float(x[4] @ solved), rel=1e-5, abs=1e-7)
    assert isinstance(found.calibration, Unmeasured)
    assert found.table["rise"] == (found.loo_loss - found.loss).tolist()


def test_a_classifier_gets_estimates_against_the_inferred_label() -> None:
    task = planted(4)
    found = leave_one_out(task, folds=3)
    assert isinstance(found.calibration, Measurement)
    low, high = found.test_loss.interval
    assert low < found.test_loss.value < high
    assert found.test_loss.value < float(found.loo_loss.mean())  # wrong labels are no longer held against it
    wrong = task.train.labels() != task.true_labels
    rise = found.loo_loss - found.loss
    assert float(rise[wrong].mean()) > float(rise[~wrong].mean())
    assert torch.equal(leave_one_out(task, folds=3).loo_f, found.loo_f)


def test_the_two_roads_agree_where_ekfac_is_exact() -> None:
    """One linear layer, one output: EKFAC's error is its eigenvalues' alone, small for Gaussian inputs."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(400, 4, generator=generator)
    model = nn.Linear(4, 1)
    task = Task(model, (x, torch.randn(400, 1, generator=generator)), likelihood=Gaussian(1.0))
    rises = []
    for road in ("dual", "ekfac"):
        found = leave_one_out(task, settings=Settings(damping=0.1, representation=road))
        rises.append(found.loo_loss - found.loss)
    assert torch.allclose(rises[0], rises[1], rtol=0.5, atol=2e-3)
    assert float(torch.corrcoef(torch.stack(rises))[0, 1]) > 0.95


def test_sequences_are_refused() -> None:
    model = nn.Sequential(nn.Embedding(5, 4), nn.Linear(4, 5))
    tokens = torch.randint(5, (6, 7))
    with pytest.raises(TaskError, match="leave-one-out"):
        leave_one_out(Task(model, (tokens, tokens)))


def test_calibration_error_of_known_outputs() -> None:
    """Confidence ¾ everywhere, right in half of the cases: ¼. With p(true class) = softmax: 0."""
    f = torch.tensor([[math.log(3.0), 0.0]]).repeat(100, 1)
    truth = torch.arange(100) % 2
    assert calibration_error("x", f, truth, "known").value == pytest.approx(0.25)
    assert calibration_error("x", f, torch.softmax(f.double(), -1), "known").value == pytest.approx(0, abs=1e-12)
