"""``memspace influence``."""

import json
import sys

import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from memspace import cli
from memspace.errors import DataError, TaskError

TASK = """
import torch
from torch import nn
import memspace
from memspace.task.recipe import Recipe, Training

def net():
    return nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 3))

def task():
    torch.manual_seed(0)
    x, y = torch.randn(40, 3), torch.randint(0, 3, (40,))
    training = Training(net, Recipe(2, 8, 0.1, 0.01, optimiser="sgd"))
    model = net()
    return memspace.Task(model=model, train=(x[:30], y[:30]), test=(x[30:], y[30:]), name="mine",
                         class_names=("ant", "bee", "cat"), training=training, decay=0.01)
"""


@pytest.fixture
def run(tmp_path, monkeypatch):
    (tmp_path / "mine_influence.py").write_text(TASK)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "160")
    sys.modules.pop("mine_influence", None)

    def call(*words):
        return CliRunner().invoke(cli.app, ["influence", "mine_influence:task", *words])

    return call


def test_supporters_and_opposers_are_shown_and_kept(run, tmp_path):
    found = run("--query", "3", "--query", "7", "--top", "4", "--split", "layers", "--out", "out", "--retrainings", "6")
    assert found.exit_code == 0, found.output
    for said in ("query 3", "query 7", "supporter", "opposer", "dual", "γ =", "supports the outcome", "0 (Linear)"):
        assert said in found.output
    told = json.loads((tmp_path / "out" / "top.json").read_text())
    assert [q["query"] for q in told["queries"]] == [3, 7]
    assert len(told["queries"][0]["supporters"]) == 4
    assert pq.read_metadata(tmp_path / "out" / "scores.parquet").num_rows == 60
    best = told["queries"][0]["supporters"][0]
    assert f"{best['score']:.3g}" in found.output
    assert any(f" {best['train']} " in line for line in found.output.splitlines())


@pytest.mark.parametrize(
    ("words", "error", "says"),
    [
        (("--query", "10"), DataError, "no example 10"),
        (("--query", "-1"), DataError, "no example -1"),
        (("--query", "0", "--engine", "kfac"), TaskError, "no engine"),
        (("--query", "0", "--target", "logit:1"), TaskError, "no target"),
        (("--query", "0", "--tokens"), TaskError, "with positions"),
    ],
)
def test_what_a_user_gets_wrong(run, words, error, says):
    found = run(*words, "--damping", "0.1", "--quiet", "--out", "out")
    assert isinstance(found.exception, error)
    assert says in str(found.exception)


@pytest.mark.parametrize("words", [("--query", "0", "--damping", "-1"), ("--query", "0", "--split", "rows"), ()])
def test_words_that_mean_nothing(run, words):
    assert run(*words).exit_code == 2


def test_without_retraining_the_table_says_so(run):
    found = run("--query", "0", "--retrainings", "0", "--engine", "ekfac")
    assert found.exit_code == 0
    assert "uncalibrated" in found.output
