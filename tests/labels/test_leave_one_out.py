"""Leave-one-out by leverage: exact where that is a theorem; calibration estimates; what the API gives."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn

from memspace.auditing.leave_one_out import leave_one_out
from memspace.auditing.plan import AuditSettings
from memspace.auditing.stationary import known_damping
from memspace.errors import TaskError
from memspace.measurement import Measurement, Unmeasured
from memspace.measures.calibration import calibration_error
from memspace.measures.test_loss import LabelLaws, Refitted, expect, expect_by_law
from memspace.passes.verify import verified_space
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
    found = leave_one_out(task, settings=AuditSettings(damping=alpha / len(x), representation="dual"))
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


def test_the_two_backends_agree_where_ekfac_is_exact() -> None:
    """One linear layer, one output: EKFAC's error is its eigenvalues' alone, small for Gaussian inputs."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(400, 4, generator=generator)
    model = nn.Linear(4, 1)
    task = Task(model, (x, torch.randn(400, 1, generator=generator)), likelihood=Gaussian(1.0))
    rises = []
    for backend in ("dual", "ekfac"):
        found = leave_one_out(task, settings=AuditSettings(damping=0.1, representation=backend))
        rises.append(found.loo_loss - found.loss)
    assert torch.allclose(rises[0], rises[1], rtol=0.5, atol=2e-3)
    assert float(torch.corrcoef(torch.stack(rises))[0, 1]) > 0.95


def test_sequences_are_refused() -> None:
    model = nn.Sequential(nn.Embedding(5, 4), nn.Linear(4, 5))
    tokens = torch.randint(5, (6, 7))
    with pytest.raises(TaskError, match="leave-one-out"):
        leave_one_out(Task(model, (tokens, tokens)))


def _softmax_regression(x: Tensor, y: Tensor, classes: int, decay: float) -> nn.Linear:
    model = nn.Linear(x.shape[1], classes).double()
    nn.init.zeros_(model.weight)
    nn.init.zeros_(model.bias)
    optimiser = torch.optim.LBFGS(model.parameters(), max_iter=300, tolerance_grad=1e-11, line_search_fn="strong_wolfe")

    def closure() -> Tensor:
        optimiser.zero_grad()
        loss = nn.functional.cross_entropy(model(x), y)
        loss = loss + decay / 2 * sum(p.square().sum() for p in model.parameters())
        loss.backward()
        return loss

    optimiser.step(closure)
    return model.eval()


@pytest.mark.parametrize("given", [True, False])
def test_a_convex_model_at_its_optimum_gets_exact_leave_one_out(given: bool) -> None:
    """Against trainings without the example; the decay is handed over, or read off the gradient."""
    generator = torch.Generator().manual_seed(3)
    n, decay = 40, 0.02
    y = torch.arange(n) % 3
    x = torch.randn(3, 4, generator=generator, dtype=torch.float64)[y]
    x = x + torch.randn(n, 4, generator=generator, dtype=torch.float64)
    y = torch.where(torch.rand(n, generator=generator) < 0.2, (y + 1) % 3, y)
    task = Task(_softmax_regression(x, y, 3, decay), (x, y), decay=decay if given else None)
    found = leave_one_out(task)
    assert found.damping.rule == "decay"
    assert found.damping.value == pytest.approx(decay, rel=1e-3)
    for i in (0, 7, 21):
        keep = torch.arange(n) != i
        without = _softmax_regression(x[keep], y[keep], 3, decay * n / (n - 1))
        assert torch.softmax(found.loo_f[i], -1) == pytest.approx(torch.softmax(without(x[i]), -1).detach(), abs=1e-4)


def test_theory_knows_no_damping_of_a_network_or_away_from_the_optimum() -> None:
    x, y = torch.randn(30, 3), torch.arange(30) % 2
    network = Task(nn.Sequential(nn.Linear(3, 5), nn.Tanh(), nn.Linear(5, 2)), (x, y), decay=0.1)
    assert known_damping(network, verified_space(network)) is None
    started = Task(nn.Linear(3, 2), (x, y), decay=0.1)
    assert known_damping(started, verified_space(started)) is None


class _Masked(nn.Module):
    """A linear head on a fixed function of two inputs, as a classifier of tokens and mask has."""

    def __init__(self) -> None:
        super().__init__()
        self.words, self.head = nn.Embedding(9, 3).requires_grad_(False), nn.Linear(3, 2)

    def forward(self, ids, mask):
        return self.head((self.words(ids) * mask.unsqueeze(-1)).sum(1))


@pytest.mark.parametrize("kind", [dict, tuple])
def test_theory_knows_the_damping_of_a_head_whatever_the_inputs_come_in(kind: type) -> None:
    torch.manual_seed(0)
    model, y = _Masked().double(), torch.randint(0, 2, (40,))
    x = {"ids": torch.randint(0, 9, (40, 4)), "mask": torch.rand(40, 4, dtype=torch.float64)}
    optimiser = torch.optim.LBFGS(model.head.parameters(), max_iter=300, line_search_fn="strong_wolfe")

    def loss() -> torch.Tensor:
        optimiser.zero_grad()
        penalty = sum(p.square().sum() for p in model.head.parameters())
        value = nn.functional.cross_entropy(model(**x), y) + 0.05 / 2 * penalty
        value.backward()
        return value

    optimiser.step(loss)
    for decay in (0.05, None):
        task = Task(model, (x if kind is dict else tuple(x.values()), y), decay=decay)
        choice = known_damping(task, verified_space(task))
        assert choice is not None
        assert choice.rule == "decay"
        assert choice.value == pytest.approx(0.05, rel=1e-3)


def test_the_expected_loss_is_nearer_than_the_plain_mean() -> None:
    """Calibrated outputs, labels right: over draws, the mean over the label varies less than one label's loss."""
    generator = torch.Generator().manual_seed(0)
    plain, ours, covered = [], [], 0
    for _ in range(40):
        f = 2 * torch.randn(150, 3, generator=generator, dtype=torch.float64)
        law = torch.softmax(f, -1)
        y = torch.multinomial(law, 1, generator=generator).squeeze(1)
        truth = float(-(law * law.log()).sum(1).mean())
        found = expect_by_law(f, y, LabelLaws(law, law, [law], separable=True), Refitted(truth, 5, 5), loo=None)
        plain.append(float(nn.functional.cross_entropy(f, y)) - truth)
        ours.append(found.value - truth)
        covered += found.interval[0] <= truth <= found.interval[1]
    rms = [math.sqrt(sum(e**2 for e in errors) / len(errors)) for errors in (plain, ours)]
    assert rms[1] < 0.9 * rms[0]
    assert covered >= 38


def test_what_refits_lacked_is_taken_off() -> None:
    losses = torch.full((50,), 1.2)
    found = expect(losses, Refitted(0.2, 5, 5))
    assert found.value == pytest.approx(1.1)  # (1.2 − 0.2)/(2 · 5)
    assert expect(losses, Refitted(1.3, 5, 5)).value == pytest.approx(1.2)


def test_calibration_error_of_known_outputs() -> None:
    """Confidence ¾ everywhere, right in half of the cases: ¼. With p(true class) = softmax: 0."""
    f = torch.tensor([[math.log(3.0), 0.0]]).repeat(2000, 1)
    truth = torch.arange(2000) % 2
    assert calibration_error(f, truth).value == pytest.approx(0.25, abs=0.01)
    law = torch.softmax(f.double(), -1)
    assert calibration_error(f, law).value == pytest.approx(0, abs=1e-9)


@pytest.mark.parametrize("n", [60, 400])
def test_a_perfectly_calibrated_predictor_may_have_no_error(n: int) -> None:
    generator = torch.Generator().manual_seed(n)
    reached = 0
    for _ in range(40):
        f = 3 * torch.randn(n, 10, generator=generator)
        y = torch.multinomial(torch.softmax(f, -1), 1, generator=generator).squeeze(1)
        reached += calibration_error(f, y).interval[0] == 0
    assert reached >= 38


def test_the_error_of_too_sure_a_predictor_is_covered() -> None:
    generator = torch.Generator().manual_seed(1)
    f = 3 * torch.randn(60_000, 10, generator=generator)
    y = torch.multinomial(torch.softmax(f / 2, -1), 1, generator=generator).squeeze(1)
    truth = calibration_error(f, y).value
    covered = 0
    for k in range(50):
        part = slice(300 * k, 300 * (k + 1))
        low, high = calibration_error(f[part], y[part]).interval
        covered += low <= truth <= high
    assert covered >= 45


def test_an_optimum_far_away_is_reached_too() -> None:
    """Whole Newton steps at the Hessian of all examples go to and fro for some."""
    digits = load_digits()
    order = np.random.default_rng(0).permutation(len(digits.target))[:120]
    scaled = (digits.data[order] - digits.data.mean(0)) / (digits.data.std(0) + 1e-9)
    x, y, decay = torch.tensor(scaled), torch.tensor(digits.target[order]), 0.02

    def fit(keep: Tensor) -> nn.Module:
        model = nn.Linear(64, 10).double()
        nn.init.zeros_(model.weight)
        nn.init.zeros_(model.bias)
        descent = torch.optim.LBFGS(
            model.parameters(), max_iter=500, tolerance_grad=1e-11, line_search_fn="strong_wolfe"
        )

        def loss() -> Tensor:
            descent.zero_grad()
            norm = sum(p.square().sum() for p in model.parameters())
            value = nn.functional.cross_entropy(model(x[keep]), y[keep]) + decay * len(x) / len(keep) / 2 * norm
            value.backward()
            return value

        descent.step(loss)
        return model

    everyone = torch.arange(len(x))
    found = leave_one_out(Task(fit(everyone), (x, y), decay=decay), folds=0)
    for i in found.loo_loss.argsort(descending=True)[:4].tolist():
        without = fit(everyone[everyone != i])(x[i : i + 1]).detach()
        assert float(found.loo_loss[i]) == pytest.approx(
            float(nn.functional.cross_entropy(without, y[i : i + 1])), rel=1e-3
        )
