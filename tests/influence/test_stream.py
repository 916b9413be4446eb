"""Scores in a file: all of them, the strongest of each query, and going on after an interruption."""

import importlib
import json
from collections import Counter

import pyarrow.parquet as pq
import pytest
import torch
from torch import nn

from memspace.attribution import stream
from memspace.attribution.engines import Engine
from memspace.attribution.influence import influence
from memspace.attribution.settings import InfluenceSettings
from memspace.attribution.stream import stream_influence
from memspace.errors import Interrupted, MemoryBudgetError, OutputError, RunFolderError
from memspace.task.task import Task

prepared_module = importlib.import_module("memspace.attribution.prepared")
SETTINGS = InfluenceSettings(chunk=7)


@pytest.fixture
def task():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 3)).double()
    x, y = torch.randn(30, 4).double(), torch.randint(0, 3, (30,))
    return Task(model=model, train=(x[:24], y[:24]), test=(x[24:], y[24:]))


def scores_of(folder, queries, n=24):
    table = pq.read_table(folder / "scores.parquet").to_pandas()
    return torch.tensor(table.pivot(index="query", columns="train", values="score").loc[queries].to_numpy())


def test_the_file_holds_what_the_call_gives(task, tmp_path):
    want = influence(task, [5, 0, 3], damping=0.1)
    stored = stream_influence(task, tmp_path, [5, 0, 3], damping=0.1, top=4, settings=SETTINGS)
    assert torch.allclose(scores_of(tmp_path, [5, 0, 3]), want.scores)
    file = pq.ParquetFile(tmp_path / "scores.parquet")
    assert file.num_row_groups == 4
    assert file.metadata.num_rows == 72
    facts = json.loads(file.schema_arrow.metadata[b"memspace"])
    assert facts["engine"] == "dual"
    assert facts["damping"] == 0.1
    assert "supports" in facts["sign"]
    top = want.top(4)
    assert torch.equal(stored.top.supporters, top.supporters)
    assert torch.equal(stored.top.opposers, top.opposers)
    assert torch.allclose(stored.top.support, top.support)
    assert torch.allclose(stored.top.opposition, top.opposition)
    told = json.loads((tmp_path / "top.json").read_text())
    assert [q["query"] for q in told["queries"]] == [5, 0, 3]
    assert told["queries"][1]["supporters"][0] == {
        "train": int(top.supporters[1, 0]),
        "score": pytest.approx(float(top.support[1, 0])),
    }
    assert sorted(p.name for p in tmp_path.iterdir()) == ["scores.parquet", "top.json"]


def test_an_interrupted_run_goes_on_and_counts_no_half_piece(task, tmp_path, monkeypatch):
    real, seen = stream.score_pass, []

    def twice(*args, **kwargs):
        if len(seen) == 2:
            raise KeyboardInterrupt
        seen.append(kwargs["index"])
        return real(*args, **kwargs)

    monkeypatch.setattr(stream, "score_pass", twice)
    with pytest.raises(Interrupted, match="goes on"):
        stream_influence(task, tmp_path, [1, 2], damping=0.1, settings=SETTINGS)
    assert not (tmp_path / "scores.parquet").exists()
    half = tmp_path / ".parts" / "scores-00000000-0000000014.parquet.tmp"
    half.write_bytes(b"PAR1 torn")
    monkeypatch.setattr(stream, "score_pass", real)
    monkeypatch.setattr(stream, "prepared", None)  # the engine is not needed again
    stored = stream_influence(task, tmp_path, [1, 2], damping=0.1, settings=SETTINGS)
    assert stored.pieces == (2, 4)
    assert torch.allclose(scores_of(tmp_path, [1, 2]), influence(task, [1, 2], damping=0.1).scores)


def test_what_costs_trainings_and_solves_is_kept_too(task, tmp_path, monkeypatch):
    """Interrupted between two solves: the damping is not chosen again, and the first solve not repeated."""
    from memspace.attribution.prepared import Prepared

    monkeypatch.setattr(Prepared, "at_once", 2)
    choose, solve, count = prepared_module._choose, Engine.solve, Counter()

    def chosen(*args):
        count["chosen"] += 1
        return choose(*args)

    def solved(self, b, damping):
        count["solved"] += 1
        if count["solved"] == 2:
            raise KeyboardInterrupt
        return solve(self, b, damping)

    monkeypatch.setattr(prepared_module, "_choose", chosen)
    monkeypatch.setattr(Engine, "solve", solved)
    with pytest.raises(Interrupted, match="goes on"):
        stream_influence(task, tmp_path, settings=SETTINGS)
    stored = stream_influence(task, tmp_path, settings=SETTINGS)
    assert count == {"chosen": 1, "solved": 4}  # of three solves one was interrupted
    want = influence(task, settings=SETTINGS)
    assert torch.allclose(scores_of(tmp_path, list(range(6))), want.scores)
    assert stored.facts["damping_rule"] == want.damping_rule
    assert stored.facts["reliable"] == want.reliable


FOREIGN = {
    "scores.parquet": lambda p: p.write_bytes(b"mine"),
    "top.json": lambda p: p.write_text('{"a": 1}'),
    ".parts": lambda p: (p.mkdir(), (p / "mine").write_text("x")),
    ".parts link": lambda p: p.with_name(".parts").symlink_to(p.parent.parent),
}


@pytest.mark.parametrize("what", FOREIGN)
def test_files_of_others_are_left_alone(task, tmp_path, what):
    folder = tmp_path / "out"
    folder.mkdir()
    FOREIGN[what](folder / what)
    before = sorted(p.name for p in tmp_path.rglob("*"))
    with pytest.raises(RunFolderError, match="not written by memspace"):
        stream_influence(task, folder, [0], damping=0.1, settings=SETTINGS)
    assert sorted(p.name for p in tmp_path.rglob("*")) == before


@pytest.mark.parametrize("change", ["queries", "damping", "weights"])
def test_another_question_starts_anew(task, tmp_path, monkeypatch, change):
    real, calls = stream.score_pass, []

    def once(*args, **kwargs):
        calls.append(1)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return real(*args, **kwargs)

    monkeypatch.setattr(stream, "score_pass", once)
    with pytest.raises(Interrupted):
        stream_influence(task, tmp_path, [1, 2], damping=0.1, settings=SETTINGS)
    monkeypatch.setattr(stream, "score_pass", real)
    queries, damping = ([2, 1], 0.1) if change == "queries" else ([1, 2], 0.1 if change == "weights" else 0.2)
    if change == "weights":
        task.model[0].weight.data[0, 0] += 1e-9
    stored = stream_influence(task, tmp_path, queries, damping=damping, settings=SETTINGS)
    assert stored.pieces == (4, 4)


def test_queries_in_several_blocks(task, tmp_path, monkeypatch):
    from memspace.attribution.prepared import Prepared

    monkeypatch.setattr(Prepared, "at_once", 2)
    stored = stream_influence(task, tmp_path, damping=0.1, top=3, settings=SETTINGS)
    want = influence(task, damping=0.1)
    assert stored.pieces == (12, 12)  # six queries by twos
    assert torch.allclose(scores_of(tmp_path, list(range(6))), want.scores)
    assert torch.equal(stored.top.supporters, want.top(3).supporters)


def test_a_folder_that_cannot_be_written(task, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="cannot be written"):
        stream_influence(task, tmp_path / "file", [0], damping=0.1)


def test_more_gradients_than_memory_holds(task, tmp_path):
    with pytest.raises(MemoryBudgetError, match="fewer queries"):
        stream_influence(task, tmp_path, damping=0.1, settings=InfluenceSettings(memory=4096))
