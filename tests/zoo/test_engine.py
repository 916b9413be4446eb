"""Processes of one machine: killed, interrupted or failing, they leave what is finished, say so, and end."""

from __future__ import annotations

import os
import pickle
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from memspace.errors import DataError, MemspaceError, WorkerError
from memspace.passes.processes import PeerFailedError
from memspace.verbs.zoo import WorkSettings, train_zoo
from memspace.zoo.declaration import load_zoo
from memspace.zoo.engine import run_local
from memspace.zoo.stages.train import training_pieces
from memspace.zoo.store import ZooStore
from tests.zoo.declared import SLOW, TINY
from tests.zoo.marked_pieces import FailingPiece, MarkedPiece

PROMPT = 120.0  # seconds on a busy machine; the pieces that run would take hours


def kill_who_writes(marks: Path, name: str) -> threading.Thread:
    """Send SIGKILL to the first process that writes a mark of this name."""

    def kill() -> None:
        while not (marked := list(marks.glob(f"{name}.*"))):
            time.sleep(0.02)
        os.kill(int(marked[0].suffix[1:]), signal.SIGKILL)

    thread = threading.Thread(target=kill, daemon=True)
    thread.start()
    return thread


def marked(folder: Path, declared: Path, waits: int | None = None) -> list[MarkedPiece]:
    """The pieces of a declaration; the process that first does one of them waits in the middle."""
    marks = folder.parent / f"{folder.name}-marks"
    marks.mkdir(exist_ok=True)
    pieces = training_pieces(load_zoo(declared), ZooStore(folder), None)
    return [MarkedPiece(p, marks, str(i), waits=i == waits) for i, p in enumerate(pieces)]


def started(declared: Path, folder: Path, engine: str, **environment: str) -> subprocess.Popen[str]:
    """``memspace zoo run`` with two workers, in a session of its own."""
    words = ["zoo", "run", str(declared), "--out", str(folder), "--workers", "2", "--engine", engine]
    return subprocess.Popen(
        [sys.executable, "-m", "memspace", *words, "--stages", "train", "--quiet"],
        start_new_session=True,
        env=os.environ | {"OMP_NUM_THREADS": "1"} | environment,
        stderr=subprocess.PIPE,
        text=True,
    )


def wait_for(condition: object, seconds: float) -> bool:
    """Wait until a function of nothing is true."""
    assert callable(condition)
    until = time.monotonic() + seconds
    while not condition() and time.monotonic() < until:
        time.sleep(0.05)
    return bool(condition())


def processes_of(session: int) -> list[int]:
    """Processes of a session that have not ended."""
    alive = []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            state, _, _, of = (entry / "stat").read_text().rpartition(")")[2].split()[:4]
        except OSError:  # it has just ended
            continue
        if int(of) == session and state != "Z":
            alive.append(int(entry.name))
    return alive


@pytest.fixture
def tiny(tmp_path: Path) -> Path:
    path = tmp_path / "tiny.toml"
    path.write_text(TINY)
    return path


@pytest.fixture
def slow(tmp_path: Path) -> Path:
    path = tmp_path / "slow.toml"
    path.write_text(SLOW)
    return path


def test_a_killed_process_is_one_sentence_and_the_second_run_completes(tiny: Path, tmp_path: Path) -> None:
    folder = tmp_path / "store"
    pieces = marked(folder, tiny, waits=3)
    killer = kill_who_writes(pieces[0].marks, "3")
    with pytest.raises(WorkerError, match=r"^a process of the zoo was killed .*run the same command again"):
        list(run_local(pieces, 2))
    killer.join()
    there = {p.name: p.stat().st_mtime_ns for p in (folder / "trained").glob("*.parquet")}
    assert 0 < len(there) < 12
    store = train_zoo(tiny, out=folder, settings=WorkSettings(workers=1, stages=("train",))).store
    after = {p.name: p.stat().st_mtime_ns for p in (folder / "trained").glob("*.parquet")}
    assert len(after) == 12
    assert {n: after[n] for n in there} == there
    reference = train_zoo(tiny, out=tmp_path / "reference", settings=WorkSettings(workers=1, stages=("train",))).store
    assert store.digest() == reference.digest()


def test_a_failure_with_advice_comes_back_from_a_process_as_itself(tiny: Path, tmp_path: Path) -> None:
    marks = tmp_path / "marks"
    marks.mkdir()
    with pytest.raises(DataError, match=r"^the file is missing \(failing.txt\); fetch it again\.$"):
        list(run_local([FailingPiece(marks), FailingPiece(marks)], 2))


@pytest.mark.parametrize("error", [DataError("a", where="b", remedy="c"), PeerFailedError()], ids=lambda e: str(e))
def test_failures_travel_between_processes(error: MemspaceError) -> None:
    again = pickle.loads(pickle.dumps(error))
    assert type(again) is type(error)
    assert (str(again), again.what, again.where, again.remedy) == (str(error), error.what, error.where, error.remedy)


def test_ctrl_c_ends_all_processes_promptly(slow: Path, tmp_path: Path) -> None:
    process = started(slow, tmp_path / "store", "local")
    assert wait_for(lambda: len(processes_of(process.pid)) >= 3, 240.0)
    time.sleep(5.0)  # begun, and in the middle of pieces that take hours
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does
    began = time.monotonic()
    _, spoken = process.communicate(timeout=120)
    assert time.monotonic() - began < PROMPT
    assert process.returncode == 130
    assert spoken.splitlines() == [
        "memspace: stopped (by the user); finished stages are kept, the same command goes on."
    ]
    assert wait_for(lambda: not processes_of(process.pid), PROMPT)


def test_processes_end_with_their_parent(slow: Path, tmp_path: Path) -> None:
    process = started(slow, tmp_path / "store", "local")
    assert wait_for(lambda: len(processes_of(process.pid)) >= 4, 240.0)  # two workers, and what counts resources
    time.sleep(5.0)
    process.kill()
    process.communicate(timeout=120)
    assert wait_for(lambda: not processes_of(process.pid), PROMPT)
