"""``memspace prune``: a state dict that loads, with its cost; bad usage in one sentence. And the chapter."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from typer.testing import CliRunner

import memspace
from memspace.cli import app
from memspace.task.data import Data

SOURCE = """
import torch
import memspace

def task():
    torch.manual_seed(0)
    g = torch.Generator().manual_seed(1)
    net = torch.nn.Sequential(
        torch.nn.Conv2d(1, 4, 3), torch.nn.ReLU(), torch.nn.Flatten(), torch.nn.Linear(64, 8), torch.nn.Tanh(),
        torch.nn.Linear(8, 3),
    )
    x = torch.randn(60, 1, 6, 6, generator=g)
    with torch.no_grad():
        y = net(x).argmax(1)
    return memspace.Task(model=net, train=(x[:40], y[:40]), test=(x[40:], y[40:]), name="prunable")
"""


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "prunable_task.py").write_text(SOURCE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    return tmp_path


@pytest.mark.parametrize("method", ["fisher-inverse", "geometric-median"])
def test_it_writes_a_state_dict_and_says_what_it_cost(here: Path, method: str) -> None:
    out, page = here / "pruned.safetensors", here / "page.html"
    arguments = ["prune", "prunable_task:task", "--keep", "0.4", "--method", method, "--rows", "60"]
    done = CliRunner().invoke(app, [*arguments, "--out", str(out), "--report", str(page), "--json"])
    assert done.exit_code == 0, done.output
    told = {m["name"]: m for m in json.loads(done.stdout)["measurements"]}
    assert told["pruning.accuracy_before"]["value"] == 1.0
    assert told["pruning.accuracy_after"]["interval"] is not None
    state = load_file(str(out))
    import prunable_task

    model = prunable_task.task().model
    model.load_state_dict(state)
    matrices = torch.cat([p.flatten() for p in model.parameters() if p.dim() > 1])
    assert float((matrices != 0).double().mean()) <= 0.4 + 1e-2
    assert "fisher-diagonal" in page.read_text()


def test_wrong_usage_is_one_sentence(here: Path) -> None:
    for extra in (["--keep", "2"], ["--method", "by-eye"], ["--objective", "beauty"]):
        done = CliRunner().invoke(app, ["prune", "prunable_task:task", "--out", "x.safetensors", *extra])
        assert done.exit_code == 2
    assert not (here / "x.safetensors").exists()


def test_the_chapter_holds_every_curve(here: Path) -> None:
    import prunable_task

    task = prunable_task.task()
    results = memspace.audit(task.model, Data(task.train), task.test, out=here / "run")
    chapter = next(c for c in results.chapters if c.id == "efficiency")
    names = {s.name for s in chapter.figures[0].series}
    assert names == {"magnitude", "Fisher (OBD)", "Fisher inverse (OBS)", "filters by geometric median"}
    measured = {m.name for m in chapter.measurements}
    assert {"efficiency.fisher_inverse.accuracy_at_10", "efficiency.filters.smallest_share"} <= measured
