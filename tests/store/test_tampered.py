"""A run folder that someone edited reads as it was written, or ends in one sentence; never in a traceback."""

from __future__ import annotations

import copy
import io
import json
import random
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from memspace.auditing.store import Store, load_results
from memspace.errors import RunFolderError
from memspace.report.html import render
from memspace.report.terminal import Terminal
from memspace.report.text import summarise
from tests.report.sample import sample

EDITS = 400
VALUES: list[Any] = [
    None, True, False, 0, -1, 3, 1.5, 1e308, -1e308, 10**400, float("nan"), float("inf"), "", "x", "7", "\ud800",
    "[/INST]", "\x00", "../../x", [], [None], [[]], [1, "a"], ["a"], {}, {"a": 1}, {"": []}, "x" * 10_000,
]  # fmt: skip


@pytest.fixture(scope="module")
def written(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("run")
    Store(folder, {"k": 1}).save_results(sample(), "page")
    return folder


def _places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [path, *(p for k, v in inner for p in _places(v, (*path, k)))]


def _edited(content: Any, rng: random.Random) -> Any:
    """One random edit at a random place, each level of the file as likely as the next."""
    content = copy.deepcopy(content)
    places = _places(content)[1:]
    depth = rng.choice(sorted({len(p) for p in places}))
    path = rng.choice([p for p in places if len(p) == depth])
    holder = content
    for key in path[:-1]:
        holder = holder[key]
    key, act = path[-1], rng.choice(["set", "set", "set", "delete", "double", "rename", "swap"])
    if act == "delete":
        del holder[key]
    elif act == "double" and isinstance(holder, list):
        holder.append(copy.deepcopy(holder[key]))
    elif act == "rename" and isinstance(holder, dict):
        holder[f"{key}s"] = holder.pop(key)
    elif act == "swap":
        other = rng.choice(list(holder) if isinstance(holder, dict) else range(len(holder)))
        holder[key], holder[other] = holder[other], holder[key]
    else:
        holder[key] = copy.deepcopy(rng.choice(VALUES))
    return content


def _read(folder: Path) -> dict[str, Any] | str:
    """What a reader gets: the results, rendered and summarised without a fault, or one sentence."""
    try:
        results = load_results(folder)
    except RunFolderError as error:
        text = str(error)
        assert "\n" not in text
        assert len(text) < 600
        return text
    assert "<html" in render(results)
    summarise(results, folder, Terminal(file=io.StringIO(), width=100))
    return results.to_dict()


def test_what_is_read_is_written_again_byte_by_byte(written):
    assert json.dumps(load_results(written).to_dict()) == json.dumps(sample().to_dict())


def _copy(written: Path, folder: Path, state: bool) -> Path:
    for path in written.iterdir():
        if path.is_file() and (state or path.name != "state.json"):
            (folder / path.name).write_bytes(path.read_bytes())
    return folder / "results.json"


@pytest.mark.parametrize("part", range(4))
@pytest.mark.parametrize("state", [True, False], ids=["marked", "unmarked"])
def test_every_random_edit_is_a_sentence_or_changes_nothing_that_cannot_be_read(written, tmp_path, state, part):
    path = _copy(written, tmp_path, state)
    content, rng = json.loads(path.read_text()), random.Random(100 + part)
    whole, refused = _read(tmp_path), 0
    assert isinstance(whole, dict)
    for _ in range(EDITS // 4):
        edited = _edited(content, rng)
        path.write_text(json.dumps(edited, indent=1, ensure_ascii=True))
        found = _read(tmp_path)
        if isinstance(found, str):
            refused += 1
        elif state:
            assert found == whole  # an edit that says the same
        else:  # plain numbers and words may be others; what is read is what the file says
            assert {k: v for k, v in found.items() if k != "chapters"}.keys() | {"chapters"} <= edited.keys()
    assert refused > EDITS // 16


@pytest.mark.parametrize(
    "text",
    [
        "[" * 100_000,
        '{"schema": 1, "a": ' + "[" * 5000 + "]" * 5000 + "}",
        '{"schema": 1, "version": ' + "1" * 10_000 + "}",
        '{"schema": true}',
        '{"schema": 1e0}',
        "\ufeff{}",
        "NaN",
    ],
)
def test_files_that_are_no_results_are_one_sentence(written, tmp_path, text):
    path = _copy(written, tmp_path, state=False)
    path.write_text(text, encoding="utf-8")
    assert isinstance(_read(tmp_path), str)


def test_settings_nested_beyond_reason_are_refused(written, tmp_path):
    path = _copy(written, tmp_path, state=False)
    content = json.loads(path.read_text())
    deep: Any = []
    for _ in range(300):
        deep = [deep]
    for settings in ({"deep": deep}, {"a": {"b": {"c": 1}}}):
        path.write_text(json.dumps(content | {"settings": settings}))
        assert isinstance(_read(tmp_path), str) == ("deep" in settings)


@pytest.mark.parametrize(
    "bomb",
    [
        {"x": pa.nulls(2**26)},
        {f"c{k}": pa.nulls(2**14) for k in range(4000)},
        {"x": pa.DictionaryArray.from_arrays(pa.array([0] * 4096, pa.int32()), pa.array(["a" * 2**20]))},
    ],
    ids=["rows", "columns", "text"],
)
def test_tables_that_would_fill_memory_are_refused(written, tmp_path, bomb):
    _copy(written, tmp_path, state=False)
    table = pa.table(bomb)
    pq.write_table(table, tmp_path / "examples.parquet", compression="zstd")
    assert (tmp_path / "examples.parquet").stat().st_size < 50_000_000
    assert "than any run writes" in str(_read(tmp_path))


@pytest.mark.parametrize("content", [b"", b"PAR1", b"PAR1" + b"\x00" * 100 + b"PAR1", b"\x1f\x8b\x08"])
@pytest.mark.parametrize("state", [True, False])
def test_broken_and_missing_tables_are_one_sentence(written, tmp_path, content, state):
    _copy(written, tmp_path, state)
    (tmp_path / "examples.parquet").write_bytes(content)
    assert "examples.parquet" in str(_read(tmp_path))
    (tmp_path / "examples.parquet").unlink()
    assert "examples.parquet" in str(_read(tmp_path))


@pytest.mark.parametrize("seed", range(3))
def test_damaged_stages_of_an_interrupted_run_are_one_sentence(tmp_path, seed):
    import torch

    store = Store(tmp_path, {"k": 1})
    store.save_tensors("rows", {"a": torch.arange(6.0)})
    store.save_chapter(sample().chapters[0], {"examples": {"x": [1.0]}})
    rng = random.Random(seed)
    for path in (tmp_path / ".partial").iterdir():
        raw = bytearray(path.read_bytes())
        for _ in range(30):
            at = rng.randrange(len(raw))
            changed = raw[:at] + bytes([rng.randrange(256)]) + raw[at + 1 :] if rng.random() < 0.7 else raw[:at]
            path.write_bytes(bytes(changed))
            said = _refusal(store, path)
            assert said is None or path.name in said


def _refusal(store: Store, path: Path) -> str | None:
    try:
        store.load_tensors("rows") if path.suffix == ".safetensors" else store.load_chapter(path.stem)
    except RunFolderError as error:
        return str(error)
    return None
