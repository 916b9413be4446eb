"""Pieces on a Ray cluster of two processes: one is killed, and the store is that of one process, to the last bit."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from memspace.errors import DataError, MissingPackageError, WorkerError
from memspace.verbs.zoo import WorkSettings, train_zoo
from memspace.zoo import ray_engine
from memspace.zoo.engine import ENGINES
from tests.zoo.declared import SLOW, TINY
from tests.zoo.marked_pieces import FailingPiece
from tests.zoo.test_engine import PROMPT, kill_who_writes, marked, started, wait_for

run_ray = ENGINES["ray"]


@pytest.fixture(scope="module")
def ray() -> Iterator[Any]:
    """Ray, connected to a cluster as the engine itself starts one."""
    module = pytest.importorskip("ray", reason="needs ray: pip install 'memspace[ray]'")
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("RAY_ADDRESS", raising=False)
        with ray_engine._connected(module, 2):
            yield module
    assert not module.is_initialized()


@pytest.fixture
def tiny(tmp_path: Path) -> Path:
    path = tmp_path / "tiny.toml"
    path.write_text(TINY)
    return path


def test_a_killed_process_changes_no_bit_of_the_store(ray: Any, tiny: Path, tmp_path: Path) -> None:
    folder = tmp_path / "store"
    pieces = marked(folder, tiny, waits=1)
    killer = kill_who_writes(pieces[0].marks, "1")
    assert sorted(p.name for p in run_ray(pieces, 2)) == ["0", "1", "2", "3"]
    killer.join()
    workers = [path.suffix for path in pieces[0].marks.glob("1.*")]
    assert len(workers) == 2  # the killed one, and the one that did the piece again
    settings = WorkSettings(engine="ray", stages=("train", "outcomes"))
    store = train_zoo(tiny, out=folder, settings=settings).store
    assert ray.is_initialized()  # who was connected stays so
    reference = train_zoo(tiny, out=tmp_path / "reference", settings=replace(settings, workers=1, engine="local")).store
    assert len(store.trained_keys()) == 12
    assert store.digest() == reference.digest()
    for key in reference.trained_keys():
        name = f"{key}.safetensors"
        assert (folder / "weights" / name).read_bytes() == (reference.folder / "weights" / name).read_bytes()


def test_a_failure_with_advice_comes_back_as_itself_and_is_not_repeated(ray: Any, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"^the file is missing \(failing.txt\); fetch it again\.$"):
        list(run_ray([FailingPiece(tmp_path)], 2))
    assert len(list(tmp_path.glob("failing.*"))) == 1


def test_ctrl_c_cancels_what_runs_on_a_cluster_that_stays(ray: Any, tiny: Path, tmp_path: Path) -> None:
    slow = tmp_path / "slow.toml"
    slow.write_text(SLOW)
    free = ray.available_resources()["CPU"]
    process = started(slow, tmp_path / "store", "ray", RAY_ADDRESS=ray.get_runtime_context().gcs_address)
    assert wait_for(lambda: ray.available_resources().get("CPU", 0.0) == 0.0, 240.0)
    time.sleep(2.0)
    os.kill(process.pid, signal.SIGINT)
    began = time.monotonic()
    _, spoken = process.communicate(timeout=120)
    assert time.monotonic() - began < PROMPT
    assert process.returncode == 130
    assert spoken.splitlines()[-1].startswith("memspace: stopped (by the user)")
    assert "Traceback" not in spoken
    assert wait_for(lambda: ray.available_resources().get("CPU", 0.0) == free, PROMPT)


def test_without_ray_one_sentence_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch, tiny: Path, tmp_path: Path
) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(MissingPackageError, match=r"pip install 'memspace\[ray\]'"):
        train_zoo(tiny, out=tmp_path / "store", settings=WorkSettings(engine="ray"))


def test_a_cluster_that_does_not_answer_is_one_sentence(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    pytest.importorskip("ray", reason="needs ray: pip install 'memspace[ray]'")
    monkeypatch.setenv("RAY_ADDRESS", "127.0.0.1:9")  # the discard port, where nothing listens
    monkeypatch.setattr("ray.is_initialized", lambda: False)
    with pytest.raises(WorkerError, match=r"no Ray cluster answers .*RAY_ADDRESS=127.0.0.1:9"):
        list(run_ray([FailingPiece(tmp_path)], 2))
