"""A run folder is one run's: others' files stay, two runs do not share it, files of two runs are told apart."""

from __future__ import annotations

import importlib
import json
import os
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from torch import nn

import memspace
from memspace.auditing.shared_store import open_store
from memspace.auditing.store import Store, load_results
from memspace.errors import OutputError, RunFolderError, SettingsError
from memspace.files import locked, written
from tests.report.sample import sample

store_module = importlib.import_module("memspace.auditing.store")
KEY = {"task": "abc"}


def _tree(folder: Path) -> dict[str, bytes | str]:
    out: dict[str, bytes | str] = {}
    for p in sorted(folder.rglob("*")):
        if p.name != ".lock":
            kept = p.read_bytes() if p.is_file() and not p.is_symlink() else str(p.is_symlink() and p.readlink())
            out[str(p.relative_to(folder))] = kept
    return out


def _link_partial(folder: Path) -> None:
    (folder / "elsewhere").mkdir()
    (folder / "elsewhere" / "a").write_text("x")
    (folder / ".partial").symlink_to(folder / "elsewhere")


FOREIGN = {
    "results": lambda f: (f / "results.json").write_text('{"mine": 1}'),
    "empty results": lambda f: (f / "results.json").write_text(""),
    "report": lambda f: (f / "report.html").write_text("<p>mine</p>"),
    "partial": lambda f: ((f / ".partial").mkdir(), (f / ".partial" / "download.bin").write_text("half")),
    "partial file": lambda f: (f / ".partial").write_text("mine"),
    "state": lambda f: (f / "state.json").write_text('{"epoch": 3, "loss": 0.1}'),
    "state list": lambda f: (f / "state.json").write_text("[1, 2]"),
    "deep state": lambda f: (f / "state.json").write_text("[" * 100_000),
    "linked partial": _link_partial,
    "dangling results": lambda f: (f / "results.json").symlink_to(f / "nowhere"),
}


@pytest.mark.parametrize("what", FOREIGN)
def test_a_folder_of_someone_else_is_refused_and_left_as_it_is(tmp_path, what):
    FOREIGN[what](tmp_path)
    before = _tree(tmp_path)
    with pytest.raises(RunFolderError) as caught, open_store(tmp_path, KEY):
        pass
    assert "--out" in str(caught.value)
    assert "\n" not in str(caught.value)
    assert _tree(tmp_path) == before


def test_a_link_put_in_place_of_the_partial_work_is_not_followed(tmp_path):
    run, other = tmp_path / "run", tmp_path / "other"
    Store(run, KEY).save_tensors("factors", {"a": torch.zeros(1)})
    other.mkdir()
    (other / "precious").write_text("x")
    for p in (run / ".partial").iterdir():
        p.unlink()
    (run / ".partial").rmdir()
    (run / ".partial").symlink_to(other)
    for fresh in (False, True):
        with pytest.raises(RunFolderError, match="link"):
            Store(run, KEY, fresh=fresh)
    assert (other / "precious").read_text() == "x"


@pytest.mark.parametrize("name", ["results.json", "results.json.tmp", "examples.parquet.tmp", "report.html"])
def test_a_link_under_the_name_of_a_file_is_not_written_through(tmp_path, name):
    target = tmp_path / "target"
    target.write_text("precious")
    store = Store(tmp_path / "run", KEY)
    (tmp_path / "run" / name).symlink_to(target)
    store.save_results(sample(), "<html></html>")
    assert target.read_text() == "precious"
    assert not (tmp_path / "run" / "results.json").is_symlink()


def test_a_table_that_is_not_ours_is_not_replaced(tmp_path):
    (tmp_path / "examples.parquet").write_bytes(b"mine")
    store = Store(tmp_path, KEY)
    store.save_tensors("factors", {"a": torch.zeros(1)})
    with pytest.raises(RunFolderError, match=r"examples\.parquet"):
        store.save_results(sample(), "page")
    assert (tmp_path / "examples.parquet").read_bytes() == b"mine"
    assert not (tmp_path / "results.json").exists()
    assert Store(tmp_path, KEY).has("factors")


def test_other_files_in_the_folder_do_not_matter(tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    pq.write_table(pa.table({"a": [1]}), tmp_path / "mine.parquet")
    Store(tmp_path, KEY).save_results(sample(), "page")
    Store(tmp_path, KEY | {"more": 1}).save_results(sample(), "page")
    assert (tmp_path / "notes.txt").read_text() == "mine"
    assert load_results(tmp_path).to_dict() == sample().to_dict()


def test_a_second_run_in_the_folder_says_so_and_one_that_was_killed_does_not_block(tmp_path):
    code = f"""
import sys, time
sys.path[:0] = {sys.path!r}
from pathlib import Path
from memspace.files import locked
with locked(Path({str(tmp_path)!r})):
    print("ready", flush=True)
    time.sleep(60)
"""
    other = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    try:
        assert other.stdout is not None
        assert other.stdout.readline() == "ready\n"
        with pytest.raises(RunFolderError) as caught, open_store(tmp_path, KEY):
            pass
        assert f"process {other.pid}" in str(caught.value)
        assert "another run is at work" in str(caught.value)
        assert not (tmp_path / "state.json").exists()
    finally:
        other.kill()
        other.wait()
        other.stdout.close()
    with open_store(tmp_path, KEY) as store:
        store.save_results(sample())


def test_two_runs_of_one_process_do_not_share_a_folder_either(tmp_path):
    with locked(tmp_path), pytest.raises(RunFolderError, match=f"process {os.getpid()}"), locked(tmp_path):
        pass
    with locked(tmp_path):
        pass


def test_a_run_killed_while_it_saves_is_noticed_when_read(tmp_path, monkeypatch):
    old = sample()
    Store(tmp_path, KEY).save_results(old)
    new = memspace.Results(**{**old.__dict__, "created": "2031-01-01T00:00:00+00:00"})
    monkeypatch.setattr(store_module, "written_together", _killed_after(1))
    with pytest.raises(KeyboardInterrupt):
        Store(tmp_path, KEY | {"seed": 1}).save_results(new)
    with pytest.raises(RunFolderError, match="another run"):
        load_results(tmp_path)
    (tmp_path / "state.json").unlink()  # the tables themselves say whose they are
    with pytest.raises(RunFolderError, match="another run"):
        load_results(tmp_path)


def _killed_after(count):
    def write(files):
        for k, (path, fill) in enumerate(files.items()):
            if k == count:
                raise KeyboardInterrupt
            written(path, fill)

    return write


def test_a_run_that_is_at_work_leaves_the_finished_one_readable(tmp_path):
    Store(tmp_path, KEY).save_results(sample())
    Store(tmp_path, KEY | {"seed": 1}).save_tensors("factors", {"a": torch.zeros(1)})
    assert load_results(tmp_path).to_dict() == sample().to_dict()


def test_a_disk_that_fills_with_the_page_loses_nothing(tmp_path, monkeypatch):
    before = sample()
    Store(tmp_path, KEY).save_results(before, "old page")
    store = Store(tmp_path, KEY | {"seed": 1})
    store.save_tensors("factors", {"a": torch.ones(2)})
    real = Path.write_text

    def fail(self, text, **more):
        if "report.html" in self.name:
            raise OSError(28, "No space left on device")
        return real(self, text, **more)

    monkeypatch.setattr(Path, "write_text", fail)
    with pytest.raises(OutputError, match="disk is full"):
        store.save_results(memspace.Results(**{**before.__dict__, "name": "other"}), "new page")
    monkeypatch.undo()
    assert load_results(tmp_path).to_dict() == before.to_dict()
    assert (tmp_path / "report.html").read_text() == "old page"
    again = Store(tmp_path, KEY | {"seed": 1})
    assert again.resumed
    assert again.has("factors")
    assert not list(tmp_path.rglob("*.tmp"))


@pytest.mark.parametrize("out", ["", "  "])
def test_a_folder_without_a_name_is_refused(tmp_path, monkeypatch, out):
    monkeypatch.chdir(tmp_path)
    x = torch.randn(8, 3)
    with pytest.raises(SettingsError, match="no name"):
        memspace.audit(nn.Linear(3, 2), (x, torch.zeros(8, dtype=torch.long)), out=out)
    assert list(tmp_path.iterdir()) == []


def test_numbers_in_a_key_may_differ_by_rounding_only(tmp_path):
    key = {"task": "a", "answers": [0.5, -3.0]}
    Store(tmp_path, key)
    assert Store(tmp_path, key | {"answers": [0.500001, -3.00001]}).resumed
    assert not Store(tmp_path, key | {"answers": [0.51, -3.0]}).resumed
    assert not Store(tmp_path, key | {"answers": [0.51]}).resumed
    assert json.loads((tmp_path / "state.json").read_text())["key"]["answers"] == [0.51]
