"""A retraining study from task to tables, its stop and its going on."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import torch
from torch import nn
from typer.testing import CliRunner

from memspace.cli import app
from memspace.errors import DataError, NonFiniteError, SettingsError, TaskError
from memspace.experiments.designs import left_out, random_parts
from memspace.experiments.lds import lds
from memspace.experiments.left_out import effects
from memspace.experiments.outcomes import outcomes, queries_of
from memspace.experiments.retrain import RetrainSettings, retraining_study
from memspace.experiments.store import open_study
from memspace.experiments.truth import retrain_design
from memspace.measurement import Unmeasured
from memspace.progress import Silent
from memspace.task.builtin.train import fit
from memspace.task.data import Data
from memspace.task.likelihood import Categorical, Gaussian
from memspace.task.recipe import Recipe, Training
from memspace.task.task import Task
from memspace.training.refit import refit_of

RECIPE = Recipe(3, 8, 0.2, 1e-3, optimiser="sgd")
MADE: list[int] = []


def network() -> nn.Module:
    MADE.append(1)
    return nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 3))


def task() -> Task:
    g = torch.Generator().manual_seed(0)
    x = torch.randn(60, 4, generator=g)
    y = x[:, :3].argmax(1)
    training = Training(network, RECIPE)
    model = fit(network, x[:40], y[:40], RECIPE, seed=0, record=False).model
    return Task(model, Data((x[:40], y[:40])), test=Data((x[40:], y[40:])), name="small", training=training)


def linear() -> nn.Module:
    layer = nn.Linear(5, 1, bias=False, dtype=torch.float64)
    nn.init.zeros_(layer.weight)
    return layer


@pytest.mark.parametrize("same_order", [False, True])
def test_one_step_of_linear_regression_is_linear_in_what_is_kept(same_order: bool) -> None:
    """θ = (rate/b) Σ w_j y_j x_j from zero, so that τ_qj = y_j x_j·x_q predicts x_q·θ exactly, and its loss by rank:
    the label lies far above."""
    g = torch.Generator().manual_seed(1)
    x = torch.randn(30, 5, generator=g, dtype=torch.float64)
    y = torch.randn(30, 1, generator=g, dtype=torch.float64)
    tx = torch.randn(7, 5, generator=g, dtype=torch.float64)
    recipe = Recipe(1, None, 0.1, 0.0, optimiser="sgd", momentum=0.0)
    job = Task(
        linear(),
        Data((x, y)),
        test=Data((tx, torch.full((7, 1), 100.0, dtype=torch.float64))),
        likelihood=Gaussian(1.0),
        training=Training(linear, recipe),
    )
    design = random_parts("half", 30, 24, 0.5, seeds=2, same_order=same_order)
    truth = retrain_design(job, design, queries_of(job, test=torch.arange(7)))
    scores = (y * x) @ tx.T
    assert lds(scores, truth).value == pytest.approx(1.0, abs=1e-12)
    theta = 0.1 / (30 if same_order else 15) * (design.kept[3, :, None] * y * x).sum(0)
    want = Gaussian(1.0).nll((tx @ theta)[:, None], torch.full((7, 1), 100.0, dtype=torch.float64))
    torch.testing.assert_close(truth.outcomes["loss"][3, 1], want)
    removed = left_out("left-out", 30, [torch.tensor([2]), torch.tensor([4, 5])], 3, same_order=same_order)
    found = effects(retrain_design(job, removed, queries_of(job, test=torch.arange(7))), outcome="loss")
    assert bool((found.error == 0).all())  # no seed changes anything here
    if same_order:
        before = (0.1 / 30) * (y * x).sum(0)
        after = before - (0.1 / 30) * (y * x)[4:6].sum(0)
        change = ((tx @ after - 100) ** 2 - (tx @ before - 100) ** 2) / 2
        torch.testing.assert_close(found.mean[1], change)


def test_truth_is_that_of_single_trainings() -> None:
    job = task()
    design = random_parts("half", 40, 5, 0.5, seeds=2)
    queries = queries_of(job, train=torch.tensor([3, 1]), test=torch.arange(4))
    truth = retrain_design(job, design, queries)
    refit = refit_of(job)
    assert refit is not None
    model = refit(design.kept[4].nonzero().flatten(), int(design.seeds[4, 1]))
    single = fit(
        network,
        job.train.batch(range(40)).x[design.kept[4]],
        job.train.labels()[design.kept[4]],
        RECIPE,
        seed=int(design.seeds[4, 1]),
        record=False,
    ).model
    f = single(torch.cat([job.train.batch([3, 1]).x, job.test.batch(range(4)).x])).detach()
    torch.testing.assert_close(model(queries.x).detach(), f)
    y = torch.cat([job.train.labels()[[3, 1]], job.test.labels()[:4]])
    want = outcomes(Categorical(), f.double(), y)
    for name, value in want.items():
        torch.testing.assert_close(truth.outcomes[name][4, 1], value, rtol=1e-4, atol=1e-5)  # float32 trainings
    torch.testing.assert_close(truth.seed(1).outcomes["loss"][:, 0], truth.outcomes["loss"][:, 1])


def test_margin_is_the_log_odds_of_the_label() -> None:
    f = torch.randn(6, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    y = torch.tensor([0, 1, 2, 3, 0, 1])
    p = f.softmax(-1).gather(-1, y[:, None])[:, 0]
    found = outcomes(Categorical(), f, y)
    torch.testing.assert_close(found["margin"], torch.log(p / (1 - p)))
    torch.testing.assert_close(found["correct"], (f.argmax(-1) == y).double())
    sequence = outcomes(Categorical(), f.reshape(2, 3, 4), y.reshape(2, 3))
    torch.testing.assert_close(sequence["margin"], found["margin"].reshape(2, 3).mean(1))


class Stops(Silent):
    """Interrupts as a person would, after so many trained networks."""

    def __init__(self, after: int) -> None:
        self.left = after

    def start(self, what: str, total: int) -> int:
        return int(what.startswith("retraining"))

    def advance(self, handle: int, ticks: int = 1) -> None:
        self.left -= ticks if handle else 0
        if self.left <= 0:
            raise KeyboardInterrupt


def test_a_stopped_study_goes_on(tmp_path: Path) -> None:
    job = task()
    design = random_parts("half", 40, 6, 0.5, seeds=2)
    queries = queries_of(job, test=torch.arange(4))
    whole = retrain_design(job, design, queries)
    with pytest.raises(KeyboardInterrupt):
        retrain_design(job, design, queries, store=open_study(tmp_path, job), progress=Stops(6))
    MADE.clear()
    truth = retrain_design(job, design, queries, store=open_study(tmp_path, job))
    assert len(MADE) < 12  # the first four are not drawn again
    for name, value in whole.outcomes.items():
        torch.testing.assert_close(truth.outcomes[name], value, rtol=1e-4, atol=1e-5)
    MADE.clear()
    again = retrain_design(job, design, queries, store=open_study(tmp_path, job))
    assert len(MADE) == 1  # the one that the folder's key is made of
    assert torch.equal(again.outcomes["loss"], truth.outcomes["loss"])
    other = replace(job, training=Training(network, replace(RECIPE, epochs=2)))
    assert not open_study(tmp_path, other).resumed


def test_a_task_with_refit_alone_is_retrained_in_turn() -> None:
    job = task()
    alone = replace(job, training=None, refit=refit_of(job))
    design = random_parts("half", 40, 3, 0.5)
    queries = queries_of(job, test=torch.arange(4))
    a, b = retrain_design(job, design, queries), retrain_design(alone, design, queries)
    torch.testing.assert_close(a.outcomes["loss"], b.outcomes["loss"], rtol=1e-4, atol=1e-5)
    with pytest.raises(TaskError, match="same batches"):
        retrain_design(alone, replace(design, same_order=True), queries)
    found = retraining_study(alone, RetrainSettings(parts=("same-order",), subsets=3, queries=4))
    assert all(isinstance(m, Unmeasured) for m in found.measurements["same-order"])
    with pytest.raises(TaskError, match="again"):
        retrain_design(replace(job, training=None), design, queries)


def test_a_study_from_the_command_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every part, its tables, and the same command again."""
    monkeypatch.syspath_prepend(str(Path(__file__).parent.parent.parent))
    words = ["retrain", "tests.experiments.test_study:task", "--out", str(tmp_path / "out"), "--json", "--repeats", "2"]
    for name in ("half", "same-order", "left-out", "memorisation"):
        words += ["--part", name]
    words += ["--subsets", "4", "--queries", "5", "--share", "0.1", "--networks", "6", "--example", "3"]
    MADE.clear()  # a value that the code names is part of what a folder is keyed by
    done = CliRunner().invoke(app, words)
    assert done.exit_code == 0, done.exception
    results = json.loads(done.stdout)
    assert results["networks"] == 4 * 2 + 4 * 2 + 2 * 2 + 6
    names = {m["name"] for found in results["measurements"].values() for m in found}
    assert {"half.loss.ceiling", "half.margin.ceiling", "memorisation.mean", "left-out.own effect"} <= names
    half = pq.read_table(tmp_path / "out" / "half.parquet")
    assert half.num_rows == 4 * 2 * 5
    kept = pq.read_table(tmp_path / "out" / "half-subsets.parquet")["kept"].to_pylist()
    assert all(len(k) == 20 for k in kept)
    assert pq.read_table(tmp_path / "out" / "memorisation.parquet").num_rows == 40
    assert json.loads((tmp_path / "out" / "retrain.json").read_text()) == results
    MADE.clear()
    again = CliRunner().invoke(app, words)
    assert json.loads(again.stdout) == results  # the seconds too: nothing was trained anew
    summary = CliRunner().invoke(app, [w for w in words if w != "--json"])
    assert "half.loss.ceiling" in summary.stdout
    planned = CliRunner().invoke(app, [*words, "--plan"])
    assert "6 networks on 70.0%" in planned.stdout


def test_what_cannot_be_studied_is_refused() -> None:
    job = task()
    with pytest.raises(SettingsError, match="no part 'best'"):
        RetrainSettings(parts=("best",))
    with pytest.raises(SettingsError, match="subsets is out of range"):
        RetrainSettings(subsets=0)
    with pytest.raises(DataError, match="20 examples"):
        queries_of(job, test=torch.tensor([20]))
    with pytest.raises(DataError, match="no queries"):
        queries_of(job)
    design = random_parts("half", 41, 3, 0.5)
    with pytest.raises(DataError, match="41"):
        retrain_design(job, design, queries_of(job, test=torch.arange(2)))
    wild = replace(job, training=Training(network, replace(RECIPE, rate=1e30)))
    with pytest.raises(NonFiniteError, match="not finite"):
        retrain_design(wild, random_parts("half", 40, 3, 0.5), queries_of(job, test=torch.arange(2)))


def test_the_audit_refits_held_out_networks_by_the_training() -> None:
    """A task with a training alone is calibrated as one with the same refit."""
    from memspace.measures.held_out import refit_held_out

    job = task()
    alone = replace(job, training=None, refit=refit_of(job))
    made = [refit_held_out(t, 5, 8, 0, Silent()) for t in (job, alone)]
    assert made[0] is not None
    assert made[1] is not None
    assert torch.equal(made[0].index, made[1].index)
    torch.testing.assert_close(made[0].f, made[1].f, rtol=1e-4, atol=1e-5)
