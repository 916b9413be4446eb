"""``memspace depth``, and the audit's chapter where the network has a chain of blocks."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest
import torch
from torch import nn

import memspace
from memspace.auditing.audit import AuditSettings
from tests import warm
from tests.action.depth_networks import residual_network

HERE = str(Path(__file__).parents[2])
MINE = """
import torch
import memspace
from tests.action.depth_networks import residual_network

def task():
    g = torch.Generator().manual_seed(1)
    x = torch.randn(60, 5, generator=g, dtype=torch.float64)
    y = torch.randint(0, 3, (60,), generator=g)
    return memspace.Task(model=residual_network(5, 6, 3, 3, 0), train=(x, y), name="mine", decay=1e-3)
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "mine.py").write_text(MINE)
    return tmp_path


def run(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    return warm.memspace(folder, "depth", *words, path=[HERE], environment={"COLUMNS": "140"})


def test_json_holds_measurements_and_layers(folder: Path) -> None:
    done = run(
        folder, "mine:task", "--blocks", "[123]", "--blocks", "!3", "--examples", "20", "--json", "--out", "d.json"
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found == json.loads((folder / "d.json").read_text())
    assert found["blocks"] == ["1", "2"]
    assert not found["found"]
    names = {m["name"] for m in found["measurements"]}
    assert {"depth.ratio", "depth.fisher_action", "depth.prediction_inefficiency", "depth.stationarity"} <= names
    assert len(found["layers"]["share"]) == 2
    assert sum(m["value"] for m in found["layers"]["share"]) == pytest.approx(1)
    assert all(m["interval"] for m in found["layers"]["share"])


def test_the_table_and_a_refusal(folder: Path) -> None:
    done = run(folder, "mine:task", "--examples", "20")
    assert done.returncode == 0, done.stderr
    assert "3 blocks (found), hidden state 6" in done.stdout
    assert "depth.ratio" in done.stdout
    assert "to say" in done.stdout
    bad = run(folder, "mine:task", "--blocks", "*", "--quiet")
    assert bad.returncode == 8
    assert "0 changes the shape of the hidden state from 5 to 6" in bad.stderr
    assert "1 to 3, 6" in bad.stderr
    assert "Traceback" not in bad.stderr


def _chapter(model: nn.Module) -> memspace.Chapter:
    g = torch.Generator().manual_seed(1)
    x = torch.randn(60, 5, generator=g, dtype=next(model.parameters()).dtype)
    results = memspace.audit(model, (x, torch.randint(0, 3, (60,), generator=g)), settings=AuditSettings(damping=0.1))
    return next(c for c in results.chapters if c.id == "action")


def test_the_audit_reads_a_chain_of_blocks() -> None:
    chapter = _chapter(residual_network(5, 6, 3, 3, 0))
    assert chapter.value("depth.ratio") >= 1
    assert [f.id for f in chapter.figures] == ["depth"]
    plain = _chapter(nn.Sequential(nn.Linear(5, 6), nn.Tanh(), nn.Linear(6, 3)))
    assert not [m for m in plain.measurements if m.name.startswith("depth.")]
    assert plain.figures == ()
