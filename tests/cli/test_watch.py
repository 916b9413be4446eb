"""A recorded training on the command line: its own page, an audit's action chapter, two of its checkpoints compared."""

import json

import pytest
from typer.testing import CliRunner

import memspace
from memspace.cli import app
from memspace.errors import CheckpointError, RunFolderError, WeightsMismatchError
from tests.watch.training import watched

TASK = """
from torch import nn
import memspace
from tests.watch.training import data, network


def task():
    return memspace.Task(model=network(7, stochastic=False).eval(), train=memspace.Data(data(0)), name="hand")


def other():
    return memspace.Task(model=nn.Linear(6, 3), train=memspace.Data(data(0)), name="other")
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    at = tmp_path_factory.mktemp("watch")
    (at / "watched_task.py").write_text(TASK, encoding="utf-8")
    watched(at / "rec", 40, spacing=0.2, slow=True)
    return at


def run(folder, monkeypatch, *arguments):
    monkeypatch.chdir(folder)
    monkeypatch.syspath_prepend(str(folder))
    return CliRunner().invoke(app, [*arguments])


def test_the_page_of_a_recorded_training(folder, monkeypatch):
    done = run(folder, monkeypatch, "watch", "rec", "--out", "page.html")
    assert done.exit_code == 0, done.output
    assert "length," in done.output
    html = (folder / "page.html").read_text(encoding="utf-8")
    assert ", its training</h1>" in html
    assert "Along the checkpoints" in html
    told = run(folder, monkeypatch, "watch", "rec", "--json")
    found = {m["name"]: m for c in json.loads(told.stdout)["chapters"] for m in c["measurements"]}
    assert found["action.inefficiency"]["value"] >= 1
    assert found["action.ambient_distance"]["value"] <= found["action.length"]["value"] * (1 + 1e-9)
    assert found["action.loss_bought"]["value"] > 0
    assert found["watch.effective_dimension"]["value"] > 0
    with pytest.raises(RunFolderError, match="no recorded training"):
        raise run(folder, monkeypatch, "watch", "nowhere").exception


def test_an_audit_reads_the_recorded_training(folder, monkeypatch):
    done = run(
        folder, monkeypatch, "audit", "watched_task:task", "--run", "rec", "--out", "audit", "--json", "--no-report"
    )
    assert done.exit_code == 0, done.output
    results = json.loads(done.stdout)
    found = {m["name"]: m["value"] for c in results["chapters"] for m in c["measurements"]}
    page = json.loads(run(folder, monkeypatch, "watch", "rec", "--json").stdout)
    own = {m["name"]: m["value"] for c in page["chapters"] for m in c["measurements"]}
    # The audit takes all 120 examples, the recorder 60 of them.
    assert found["action.length"] == pytest.approx(own["action.length"], rel=0.2)
    assert found["action.excess"] > 0
    assert "recorded training" in results["facts"]
    refused = run(folder, monkeypatch, "audit", "watched_task:other", "--run", "rec", "--out", "no")
    assert isinstance(refused.exception, WeightsMismatchError)


def test_checkpoints_of_a_folder_are_compared(folder, monkeypatch):
    quick = ["--effort", "10", "--examples", "40", "--json"]
    done = run(folder, monkeypatch, "compare", "watched_task:task", "rec@1", "rec@-1", "--out", "compared", *quick)
    assert done.exit_code == 0, done.output
    results = json.loads(done.stdout)
    found = {m["name"]: m["value"] for c in results["chapters"] for m in c["measurements"]}
    count = len(memspace.load_run(folder / "rec").states)
    assert count > 3
    assert found["compare.length_found"] <= found["compare.path_length"] * 1.0001
    assert results["facts"]["first network"] == "checkpoint 1 of rec"
    missing = run(folder, monkeypatch, "compare", "watched_task:task", f"rec@{count}", "rec@0", *quick)
    assert isinstance(missing.exception, CheckpointError)
    assert f"holds checkpoints rec@0 to rec@{count - 1}" in str(missing.exception)
