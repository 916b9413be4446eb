"""The run folder: written whole or not at all, and refused where it cannot be trusted."""

from __future__ import annotations

import errno
import importlib
import json
import math
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from memspace.auditing.results import SCHEMA, Chapter, Figure, Finding, Gallery, Item, Passage, Results, Series
from memspace.auditing.store import Store, load_results
from memspace.errors import MemspaceError, OutputError, RunFolderError
from memspace.measurement import Measurement, Unmeasured

store_module = importlib.import_module("memspace.auditing.store")

KEY = {"task": "abc", "settings": {"seed": 0, "queries": (1, 2), "damping": None}}


def _chapter(id: str = "geometry") -> Chapter:
    return Chapter(
        id=id,
        title="Geometry",
        question="How?",
        answer="So.",
        measurements=(
            Measurement("fisher.trace", 1.5, "nats", "exact", 10, (1.0, 2.0), "Rao 1945"),
            Measurement("fisher.odd", math.nan, "1", "exact", 10),
        ),
        unmeasured=(Unmeasured("fisher.rest", "no data", "give data"),),
        findings=(Finding("warn", "It leaks", "1 of 2", "mend it", id),),
        figures=(Figure("f", "F", "c", "x", "y", (Series("s", (1, 2), (3.0, 4.0)),), marks=((1.0, "here"),)),),
        galleries=(Gallery("g", "G", "c", (Item(3, "three", text="abc"),), query=Item(1, "one")),),
        notes=("a note",),
        seconds=0.5,
        passages=(Passage("p", "P", "c", ("so", "it"), (0.5, -1.0), "nats"),),
    )


def _results(**tables: dict[str, list[float]]) -> Results:
    return Results(
        "net", "2025-01-01T00:00:00+00:00", "0.1.0", {"model": "Net"}, {"seed": 0}, "plan", (_chapter(),), {"t": 1.0},
        tables or {"examples": {"index": [0, 1], "loss": [0.5, 0.25]}},
    )  # fmt: skip


def _one_line(error: MemspaceError, *words: str) -> None:
    text = str(error)
    assert "\n" not in text
    for word in (*words, error.what, error.where, error.remedy):
        assert word in text


def _raise(number: int) -> Callable[..., None]:
    def fail(*_args: object, **_keywords: object) -> None:
        raise OSError(number, {errno.ENOSPC: "No space left on device", errno.EROFS: "Read-only file system"}[number])

    return fail


def test_results_come_back_as_they_were(tmp_path: Path) -> None:
    results = _results()
    Store(tmp_path / "run", KEY).save_results(results)
    back = load_results(tmp_path / "run")
    assert back.to_dict() == results.to_dict()
    assert back.tables == results.tables
    assert back.measurement("fisher.trace") == results.measurement("fisher.trace")
    assert math.isnan(back.measurement("fisher.odd").value)
    assert not (tmp_path / "run" / ".partial").exists()
    assert not list((tmp_path / "run").glob("*.tmp"))


def test_tables_of_an_earlier_run_do_not_come_back(tmp_path: Path) -> None:
    Store(tmp_path, KEY).save_results(_results(old={"a": [1.0]}, examples={"b": [2.0]}))
    Store(tmp_path, KEY).save_results(_results(examples={"b": [3.0]}))
    assert load_results(tmp_path).tables == {"examples": {"b": [3.0]}}


def test_partial_work_is_kept_for_the_same_key_only(tmp_path: Path) -> None:
    first = Store(tmp_path, KEY)
    assert not first.resumed
    tensors = {"a": torch.randn(3, 2), "b": torch.arange(4).t()}
    first.save_tensors("factors", tensors)
    first.save_chapter(_chapter(), {"examples": {"x": [1.0, math.inf]}})
    again = Store(tmp_path, dict(reversed(KEY.items())))
    assert again.resumed
    assert again.has("factors")
    assert not again.has("eigenvalues")
    back = again.load_tensors("factors")
    assert all(torch.equal(back[k], v) for k, v in tensors.items())
    chapter, tables = again.load_chapter("geometry")
    assert chapter.value("fisher.trace") == 1.5
    assert chapter.figures == _chapter().figures or chapter.figures[0].marks == ((1.0, "here"),)
    assert tables == {"examples": {"x": [1.0, None]}}
    other = Store(tmp_path, KEY | {"task": "def"})
    assert not other.resumed
    assert not other.has("factors")
    assert not other.has_chapter("geometry")


def test_fresh_drops_partial_work(tmp_path: Path) -> None:
    Store(tmp_path, KEY).save_tensors("factors", {"a": torch.zeros(1)})
    fresh = Store(tmp_path, KEY, fresh=True)
    assert not fresh.resumed
    assert not fresh.has("factors")


def test_a_finished_run_is_not_resumed(tmp_path: Path) -> None:
    Store(tmp_path, KEY).save_results(_results())
    assert not Store(tmp_path, KEY).resumed


@pytest.mark.parametrize(
    ("number", "words"),
    [(errno.ENOSPC, ("the disk is full", "free some space")), (errno.EROFS, ("Read-only", "--out"))],
)
@pytest.mark.parametrize("what", ["folder", "chapter", "tensors", "results", "table", "report"])
def test_full_and_read_only_disks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, words: tuple[str, ...], what: str
) -> None:
    fail = _raise(number)
    if what == "folder":
        monkeypatch.setattr(Path, "mkdir", fail)
        with pytest.raises(OutputError) as caught:
            Store(tmp_path / "run", KEY)
        _one_line(caught.value, *words, "run")
        return
    store = Store(tmp_path, KEY)
    store.save_chapter(_chapter("earlier"), {})
    target = {"tensors": "save_file", "table": "pq.write_table"}.get(what)
    if target is None:
        monkeypatch.setattr(Path, "write_text", fail)
    elif what == "tensors":
        monkeypatch.setattr(store_module, "save_file", fail)
    else:
        monkeypatch.setattr(store_module.pq, "write_table", fail)
    actions: dict[str, Callable[[], object]] = {
        "chapter": lambda: store.save_chapter(_chapter(), {}),
        "tensors": lambda: store.save_tensors("factors", {"a": torch.zeros(1)}),
        "results": lambda: store.save_results(_results()),
        "table": lambda: store.save_results(_results()),
        "report": lambda: store.write_report("<html></html>"),
    }
    with pytest.raises(OutputError) as caught:
        actions[what]()
    _one_line(caught.value, *words, str(tmp_path))
    monkeypatch.undo()
    again = Store(tmp_path, KEY)
    assert again.resumed
    assert again.has_chapter("earlier")
    assert not again.has_chapter("geometry")
    assert not again.has("factors")
    assert not list(tmp_path.rglob("*.tmp"))


def test_the_folder_is_a_file(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for folder in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(OutputError) as caught:
            Store(folder, KEY)
        _one_line(caught.value, "--out", str(folder))


def test_a_failed_write_keeps_the_old_results(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Store(tmp_path, KEY).save_results(_results())
    store = Store(tmp_path, KEY)
    monkeypatch.setattr(Path, "replace", _raise(errno.ENOSPC))
    with pytest.raises(OutputError):
        store.save_results(_results())
    monkeypatch.undo()
    assert load_results(tmp_path).to_dict() == _results().to_dict()


@pytest.mark.parametrize("schema", [SCHEMA + 1, 0, "x", None])
def test_a_folder_of_another_version_is_left_alone(tmp_path: Path, schema: object) -> None:
    Store(tmp_path, KEY).save_results(_results())
    for name in ("results.json", "state.json"):
        d = json.loads((tmp_path / name).read_text())
        (tmp_path / name).write_text(json.dumps(d | {"schema": schema}))
    before = (tmp_path / "results.json").read_bytes()
    for act in (lambda: Store(tmp_path, KEY), lambda: load_results(tmp_path)):
        with pytest.raises(RunFolderError) as caught:
            act()
        _one_line(caught.value, f"schema {schema}", str(tmp_path), "--out")
    assert (tmp_path / "results.json").read_bytes() == before


@pytest.mark.parametrize("content", ["", "{", "[]", "3", "null", '{"schema"', "{}", "\x00\x01"])
def test_damaged_json_is_refused(tmp_path: Path, content: str) -> None:
    Store(tmp_path, KEY).save_results(_results())
    (tmp_path / "results.json").write_text(content)
    (tmp_path / "state.json").write_text(content)
    for name, act in (("results", lambda: load_results(tmp_path)), ("state", lambda: Store(tmp_path, KEY))):
        with pytest.raises(RunFolderError) as caught:
            act()
        _one_line(caught.value, "damaged", f"{name}.json", "delete it")


@pytest.mark.parametrize("missing", ["chapters", "facts", "name"])
def test_results_that_lack_a_part_are_damaged(tmp_path: Path, missing: str) -> None:
    Store(tmp_path, KEY).save_results(_results())
    d = json.loads((tmp_path / "results.json").read_text())
    del d[missing]
    (tmp_path / "results.json").write_text(json.dumps(d))
    with pytest.raises(RunFolderError) as caught:
        load_results(tmp_path)
    _one_line(caught.value, "damaged")


def test_a_damaged_table_is_refused(tmp_path: Path) -> None:
    Store(tmp_path, KEY).save_results(_results())
    (tmp_path / "examples.parquet").write_bytes(b"PAR1 nothing")
    with pytest.raises(RunFolderError) as caught:
        load_results(tmp_path)
    _one_line(caught.value, "damaged")


def test_damaged_partial_work_is_refused(tmp_path: Path) -> None:
    store = Store(tmp_path, KEY)
    store.save_tensors("factors", {"a": torch.zeros(1)})
    store.save_chapter(_chapter(), {})
    (tmp_path / ".partial" / "factors.safetensors").write_bytes(b"xx")
    (tmp_path / ".partial" / "geometry.json").write_text('{"chapter": {}}')
    with pytest.raises(RunFolderError) as caught:
        store.load_tensors("factors")
    _one_line(caught.value, "factors.safetensors")
    with pytest.raises(RunFolderError) as caught:
        store.load_chapter("geometry")
    _one_line(caught.value, "geometry.json")


def test_a_folder_without_results(tmp_path: Path) -> None:
    for folder in (tmp_path, tmp_path / "none"):
        with pytest.raises(RunFolderError) as caught:
            load_results(folder)
        _one_line(caught.value, "no finished results", str(folder), "memspace audit")
