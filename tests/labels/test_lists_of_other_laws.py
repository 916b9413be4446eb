"""Lists of labels that are numbers, counts, or several in each example: planted faults lead, and the audit agrees."""

from __future__ import annotations

import math
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import torch
from torch import Tensor, nn
from typer.testing import CliRunner

from memspace.auditing.audit import audit_task
from memspace.auditing.label_issues import LabelIssues, label_issues
from memspace.auditing.leave_one_out import leave_one_out
from memspace.auditing.plan import AuditSettings
from memspace.auditing.results import Results
from memspace.errors import TaskError
from memspace.measurement import Unmeasured
from memspace.task.laws.poisson import count_residuals
from memspace.task.likelihood import Bernoulli, Gaussian, Likelihood, Poisson
from memspace.task.task import Task

N, D = 160, 4


def fitted(x: Tensor, y: Tensor, law: Likelihood, kept: Tensor | None = None) -> nn.Module:
    """A linear network at the minimum of its loss with a little decay."""
    torch.manual_seed(0)
    model = nn.Linear(x.shape[1], y.shape[1]).double()
    at = torch.arange(len(x)) if kept is None else kept
    steps = torch.optim.LBFGS(model.parameters(), max_iter=100, line_search_fn="strong_wolfe")

    def closure() -> Tensor:
        steps.zero_grad()
        decay = sum(p.square().sum() for p in model.parameters())
        loss: Tensor = law.nll(model(x[at]), y[at]).mean() + 0.003 * decay
        loss.backward()
        return loss

    steps.step(closure)
    return model


def task_of(x: Tensor, y: Tensor, law: Likelihood) -> Task:
    return Task(fitted(x, y, law), (x, y), law, refit=lambda kept, _seed: fitted(x, y, law, kept))


def numbers(seed: int = 0) -> tuple[Task, Tensor]:
    g = torch.Generator().manual_seed(seed)
    x = torch.randn(N, D, generator=g, dtype=torch.float64)
    y = x @ torch.randn(D, 2, generator=g, dtype=torch.float64) + torch.randn(N, 2, generator=g, dtype=torch.float64)
    wrong = torch.arange(0, N, 16)
    y[wrong, wrong // 16 % 2] += 12
    return task_of(x, 50 + 7 * y, Gaussian()), wrong


def counts(seed: int = 0) -> tuple[Task, Tensor]:
    g = torch.Generator().manual_seed(seed)
    x = torch.randn(N, D, generator=g, dtype=torch.float64)
    rate = (1 + x @ torch.randn(D, 1, generator=g, dtype=torch.float64) / 3).exp()
    y = torch.poisson(rate, generator=g)
    wrong = torch.arange(0, N, 20)
    y[wrong] += (8 * rate[wrong].sqrt() + 6).round()
    return task_of(x, y, Poisson()), wrong


def several(seed: int = 0, outputs: int = 3) -> tuple[Task, Tensor]:
    g = torch.Generator().manual_seed(seed)
    x = torch.randn(2 * N, D, generator=g, dtype=torch.float64)
    truth = x @ torch.randn(D, outputs, generator=g, dtype=torch.float64) > 0
    wrong = torch.rand(2 * N, outputs, generator=g) < 0.08
    return task_of(x, (truth ^ wrong).double(), Bernoulli()), wrong


def same(found: LabelIssues, results: Results, column: str) -> None:
    audited = label_issues(results)
    assert found.noise.value == pytest.approx(audited.noise.value)
    assert found.noise.interval == pytest.approx(audited.noise.interval)
    assert found.noise.reliable == audited.noise.reliable
    if column == "p_outlier":
        assert found.table == audited.table


def test_outliers_of_a_regression_lead_with_what_was_expected_instead() -> None:
    task, wrong = numbers()
    found = label_issues(task)
    t = found.table
    assert set(t["index"][: len(wrong)]) == set(wrong.tolist())
    assert list(t) == ["index", "output", "value", "prediction", "standardised_residual", "p_outlier", "train_loss"]
    assert t["p_outlier"] == sorted(t["p_outlier"], reverse=True)
    y = task.train.labels()
    for row in range(len(wrong)):
        i, c = t["index"][row], t["output"][row]
        assert c == i // 16 % 2
        assert t["value"][row] == pytest.approx(float(y[i, c]))
        assert t["value"][row] - t["prediction"][row] > 7 * 7
        assert t["standardised_residual"][row] > 6
    low, high = found.noise.interval
    assert low < len(wrong) / N < high
    same(found, audit_task(task, AuditSettings()), "p_outlier")


def test_counts_that_their_law_does_not_explain_lead() -> None:
    task, wrong = counts()
    found = label_issues(task)
    assert set(found.table["index"][: len(wrong)]) == set(wrong.tolist())
    assert all(p > 0.5 for p in found.table["p_outlier"][: len(wrong)])
    assert "output" not in found.table
    same(found, audit_task(task, AuditSettings()), "p_outlier")


@pytest.mark.parametrize("rate", [0.02, 0.7, 6.0, 300.0])
def test_residuals_of_counts_are_standard_normal_at_every_rate(rate: float) -> None:
    """Also where the log-rate itself is uncertain: mean, variance and tail of 5,000."""
    g = torch.Generator().manual_seed(int(rate * 100))
    f = torch.full((5_000,), rate, dtype=torch.float64).log()
    y = torch.poisson((f + 0.2 * torch.randn(5_000, generator=g, dtype=torch.float64)).exp(), generator=g)
    z = count_residuals(y, f, torch.full_like(f, 0.04), torch.rand(5_000, generator=g, dtype=torch.float64))
    assert abs(float(z.mean())) < 4 / 5_000**0.5 + 0.01
    assert float(z.var()) == pytest.approx(1, abs=4 * (2 / 5_000) ** 0.5 + 0.02)
    assert float((z.abs() > 3).double().mean()) < 0.008


def test_residuals_of_counts_far_from_their_rate_are_finite() -> None:
    y, f = torch.tensor([0.0, 1e3, 1e6, 0.0]), torch.tensor([5.0, 0.0, -700.0, -700.0])
    z = count_residuals(y, f, torch.tensor([0.0, 0.0, 0.1, 60.0]), torch.full((4,), 0.5))
    assert bool(torch.isfinite(z).all())
    assert z[0] < -10
    assert z[1] > 30


def test_wrong_labels_among_several_of_an_example_are_found_output_by_output() -> None:
    task, wrong = several()
    found = label_issues(task)
    t = found.table
    assert len(found) == wrong.numel()
    planted = {(i, c) for i, c in wrong.nonzero().tolist()}
    listed = list(zip(t["index"], t["output"], strict=True))
    k = len(planted)
    assert len(planted & set(listed[:k])) > 0.6 * k
    assert len(planted & set(listed[: k // 2])) > 0.9 * (k // 2)
    assert all(a + b == 1 for a, b in zip(t["label"], t["suggested_label"], strict=True))
    low, high = found.noise.interval
    assert low < float(wrong.double().mean()) < high
    results = audit_task(task, AuditSettings())
    same(found, results, "p_wrong_label")
    examples = results.tables["examples"]
    best = [max(p for i, p in zip(t["index"], t["p_wrong_label"], strict=True) if i == j) for j in range(5)]
    assert list(examples["p_wrong_label"][:5]) == pytest.approx(best)


def test_labels_that_are_probabilities_are_not_judged_and_the_audit_says_so() -> None:
    g = torch.Generator().manual_seed(0)
    x, y = torch.randn(40, D, generator=g), torch.rand(40, 2, generator=g)
    task = Task(nn.Linear(D, 2), (x, y), Bernoulli())
    with pytest.raises(TaskError, match="they are probabilities"):
        label_issues(task)
    results = audit_task(task, AuditSettings())
    assert any(u.name == "labels.noise" for c in results.chapters for u in c.unmeasured)


EDGES: dict[str, tuple[Tensor, Likelihood]] = {
    "one number": (torch.ones(1, 1), Gaussian()),
    "numbers that are all the same": (torch.ones(40, 1), Gaussian()),
    "counts that are all 0": (torch.zeros(40, 1), Poisson()),
    "huge counts": (torch.full((40, 1), 1e7), Poisson()),
    "one example with two labels": (torch.ones(1, 2), Bernoulli()),
    "an output that is never 1": (torch.eye(2)[torch.zeros(40, dtype=torch.long)], Bernoulli()),
}


@pytest.mark.parametrize("kind", EDGES)
def test_labels_at_the_edge_have_finite_lists_and_say_what_is_not_known(kind: str) -> None:
    y, law = EDGES[kind]
    x = torch.randn(40, D, generator=torch.Generator().manual_seed(1))[: len(y)]
    task = Task(nn.Linear(D, y.shape[1]), (x, y), law)
    found = label_issues(task)
    assert all(math.isfinite(v) for column in found.table.values() for v in column)
    assert not found.noise.reliable
    if len(y) == 1 and not law.classifies:
        assert found.noise.interval == (0.0, 1.0)
        assert "fewer than 10" in found.noise.note
    alone = leave_one_out(task)
    assert isinstance(alone.explained, Unmeasured)
    assert math.isfinite(alone.test_loss.value)


def test_the_command_lists_outliers_of_a_regression(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from memspace.cli import app

    monkeypatch.chdir(tmp_path)
    own = "from tests.labels.test_lists_of_other_laws import numbers\ntask, _ = numbers()\n"
    (tmp_path / "prices.py").write_text(own)
    ran = CliRunner().invoke(app, ["labels", "prices:task", "--top", "3", "--out", "list.parquet"])
    assert ran.exit_code == 0, ran.output
    assert "share of outliers" in ran.output
    assert pq.read_table(str(tmp_path / "list.parquet")).column("p_outlier").to_pylist()[0] > 0.99
