"""The ranked list of labels: planted wrong ones lead, numbers repeat and are the audit's own, bad input is refused."""

from __future__ import annotations

import pyarrow.parquet as pq
import pytest
import torch
from torch import nn
from typer.testing import CliRunner

from memspace.auditing.audit import audit_task
from memspace.auditing.label_issues import label_issues
from memspace.auditing.plan import AuditSettings, make_plan
from memspace.auditing.quick import read_quick
from memspace.errors import TaskError
from memspace.measures.labels import fit_label_model
from memspace.measures.leave_one_out import loo_outputs
from memspace.measures.noise_fit import centred, fit_calibration, uniform
from memspace.passes.verify import verified_space
from memspace.progress import Silent
from memspace.task.builtin.options import corrupt
from memspace.task.builtin.train import fit
from memspace.task.data import Data
from memspace.task.likelihood import Categorical
from memspace.task.recipe import Recipe, Training
from memspace.task.task import Task

N, C = 240, 4
RECIPE = Recipe(12, 40, 0.05, 1e-3, checkpoints=8, threads=1, optimiser="sgd")


def _net() -> nn.Module:
    return nn.Sequential(nn.Linear(6, 16), nn.Tanh(), nn.Linear(16, C))


def planted(seed: int = 0, trainable: bool = True) -> Task:
    """Four overlapping clouds, an eighth of the labels wrong."""
    generator = torch.Generator().manual_seed(seed)
    truth = torch.arange(N) % C
    centres = 2.5 * torch.randn(C, 6, generator=generator)
    x = centres[truth] + torch.randn(N, 6, generator=generator)
    y = corrupt(truth, 0.125, C, seed)
    made = fit(_net, x, y, RECIPE, seed=seed)
    training = Training(_net, RECIPE) if trainable else None
    return Task(made.model, (x, y), run=made.run, training=training, true_labels=truth)


def test_planted_wrong_labels_lead_with_reasons() -> None:
    task = planted()
    found = label_issues(task, reasons=10)
    wrong = (task.train.labels() != task.true_labels).tolist()
    k = sum(wrong)
    assert sum(wrong[i] for i in found.table["index"][:k]) >= 0.9 * k
    assert sorted(found.table["index"]) == list(range(N))
    p = found.table["p_wrong_label"]
    assert p == sorted(p, reverse=True)
    low, high = found.noise.interval
    assert low <= 0.125 <= high
    truth = task.true_labels
    for row in range(10):
        i, said = found.table["index"][row], found.table["suggested_label"][row]
        assert said == int(truth[i])
        assert i not in found.table["for_suggested"][row] + found.table["for_label"][row]
        assert found.table["for_suggested_influence"][row] == sorted(
            found.table["for_suggested_influence"][row], reverse=True
        )
    assert found.table["for_label"][10] is None


def test_reasons_are_the_influence_on_the_difference_of_two_logits() -> None:
    """∇(f_s − f_y) M⁻¹ ∇log p(y_j), M = n(F̂ + γI), against autograd and the metric's own solve."""
    task = planted(5)
    space = verified_space(task)
    plan = make_plan(task, space, AuditSettings(representation="ekfac"))
    quick = read_quick(task, space, plan, 0, Silent())
    x, y = task.train.batch([7, 30]).x, task.train.labels()
    s, o = torch.tensor([0, 1]), torch.tensor([2, 3])
    found = quick.influence(Data((x, s)), 0.01, Silent(), less=Data((x, o)))

    def flat(outcome: torch.Tensor) -> torch.Tensor:
        grads = torch.autograd.grad(outcome, list(task.model.parameters()))
        return space.pack(dict(zip(dict(task.model.named_parameters()), grads, strict=True)))

    for q in range(2):
        f = task.model(x[q : q + 1])[0]
        solved = quick.at.metric.solve(flat(f[s[q]] - f[o[q]]).double(), 0.01) / N
        for j in (0, 11, 100):
            f = task.model(task.train.batch([j]).x)
            want = solved @ flat(torch.log_softmax(f, -1)[0, y[j]]).double()
            assert float(found[q, j]) == pytest.approx(float(want), rel=1e-3, abs=1e-6)


def test_the_table_repeats_and_is_written(tmp_path) -> None:
    task = planted(1)
    first, second = (label_issues(task, reasons=3) for _ in range(2))
    assert first.table == second.table
    first.save(tmp_path / "labels.parquet", top=5)
    read = pq.read_table(str(tmp_path / "labels.parquet")).to_pydict()
    assert read == {k: v[:5] for k, v in first.table.items()}


def test_an_audits_results_are_ranked_as_they_are() -> None:
    results = audit_task(planted(2), AuditSettings())
    found = label_issues(results)
    examples = results.tables["examples"]
    assert [examples["p_wrong_label"][i] for i in found.table["index"]] == found.table["p_wrong_label"]
    assert found.table["p_wrong_label"] == sorted(examples["p_wrong_label"], reverse=True)
    assert [examples["suggested_label"][i] for i in found.table["index"]] == found.table["suggested_label"]
    assert found.noise.value == results.measurement("labels.noise").value


@pytest.mark.parametrize("trainable", [True, False])
def test_audit_and_labels_say_the_same(trainable: bool) -> None:
    task = planted(4, trainable)
    found, results = label_issues(task, reasons=0), audit_task(task, AuditSettings())
    audited = label_issues(results)
    assert found.noise.value == pytest.approx(audited.noise.value, abs=0.03)
    assert found.noise.reliable == audited.noise.reliable
    assert len(set(found.table["index"][:20]) & set(audited.table["index"][:20])) >= 17


def test_without_a_way_to_train_a_forest_judges_and_says_so() -> None:
    found = label_issues(planted(trainable=False), reasons=0)
    assert found.seconds["refits"] == 0
    assert "refits" not in found.estimator
    assert "forest" in found.estimator
    assert "for_label" not in found.table


def test_labels_at_several_positions_are_refused() -> None:
    x = torch.randint(0, 5, (30, 6))
    words = Task(nn.Sequential(nn.Embedding(5, 4), nn.Linear(4, 5)), (x, x))
    with pytest.raises(TaskError, match="several positions"):
        label_issues(words)


def test_command(tmp_path, monkeypatch) -> None:
    from memspace.cli import app

    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.py").write_text("from tests.labels.test_label_issues import planted\ntask = planted(3)\n")
    out = tmp_path / "labels.parquet"
    ran = CliRunner().invoke(app, ["labels", "mine:task", "--top", "4", "--out", str(out)])
    assert ran.exit_code == 0, ran.output
    assert "share of wrong labels" in ran.output
    assert pq.read_table(str(out)).num_rows == 4
    assert CliRunner().invoke(app, ["labels", "mine:task", "--folds", "1"]).exit_code == 2


def _synthetic(n: int, seed: int) -> tuple[torch.Tensor, ...]:
    """Two independent opinions whose product, untempered, is the class probability; observed and true labels."""
    generator = torch.Generator().manual_seed(seed)
    one, two = (2 * torch.randn(n, 10, generator=generator, dtype=torch.float64) for _ in range(2))
    truth = torch.multinomial(torch.softmax(one + two, -1), 1, generator=generator).squeeze(1)
    return one, two, corrupt(truth, 0.15, 10, seed), truth


def test_joined_opinions_are_calibrated_and_better_than_each() -> None:
    one, two, y, truth = _synthetic(20_000, 3)
    wrong = (y != truth).double()
    model = fit_label_model([one, two], y)
    p = model.p_wrong([one, two], y)

    def score(q: torch.Tensor) -> float:
        return float(-(wrong * q.clamp(1e-9, 1).log() + (1 - wrong) * (1 - q).clamp(1e-9, 1).log()).mean())

    for f in (one, two):
        assert score(p) < score(fit_label_model(f, y).p_wrong(f, y))
    for low, high in ((0, 0.05), (0.05, 0.3), (0.3, 0.7), (0.7, 1.01)):
        inside = (p >= low) & (p < high)
        assert int(inside.sum()) > 100
        assert float(wrong[inside].mean()) == pytest.approx(float(p[inside].mean()), abs=0.06)


def test_the_calibration_is_the_likelihoods_maximum() -> None:
    """No weights or offsets near the fitted ones have a higher likelihood."""
    one, two, y, _ = _synthetic(2000, 5)
    z, labels, share = centred([one.numpy(), two.numpy()]), y.numpy(), 0.15
    fit = fit_calibration(z, labels, share, uniform(10))

    def loss(weight: torch.Tensor, offset: torch.Tensor) -> float:
        pi = torch.softmax(weight[0] * one + weight[1] * two + offset, -1).gather(1, y[:, None])
        p = (1 - share) * pi + share / 9 * (1 - pi)
        return float(-torch.log(p).sum() + offset.square().sum() / 2)

    weight, offset = torch.from_numpy(fit.weight), torch.from_numpy(fit.offset)
    best = loss(weight, offset)
    assert best == pytest.approx(fit.loss, rel=1e-9)
    for k in range(2):
        for step in (-0.02, 0.02):
            moved = weight.clone()
            moved[k] += step
            assert loss(moved, offset) > best
    for k in range(10):
        moved = offset.clone()
        moved[k] += 0.05
        assert loss(weight, moved) > best


def test_leverage_without_the_own_curvature_gives_the_same_answer() -> None:
    """V of the model without the example, used plainly, equals V of the whole model with the inverse."""
    generator = torch.Generator().manual_seed(0)
    f, y, law = torch.randn(5, 3, generator=generator).double(), torch.tensor([0, 1, 2, 0, 1]), Categorical()
    root = torch.randn(5, 3, 6, generator=generator).double()
    without = root @ root.transpose(1, 2)
    h = law.fisher_root(f) @ law.fisher_root(f).transpose(1, 2)
    whole = torch.linalg.solve(torch.eye(3, dtype=torch.float64) + without @ h, without)
    assert torch.allclose(loo_outputs(law, f, y, whole), loo_outputs(law, f, y, without, own=False), atol=1e-10)
