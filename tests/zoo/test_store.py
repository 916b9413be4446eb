"""Declarations, the store and its pieces of work: nothing finished is lost or repeated, whoever is killed when."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import polars as pl
import pytest

from memspace.claims.population import Population
from memspace.errors import DataError, RunFolderError, SettingsError
from memspace.verbs.zoo import WorkSettings, train_zoo
from memspace.zoo.declaration import load_zoo, shipped_zoos
from memspace.zoo.results import ZooResults, is_zoo
from memspace.zoo.store import ZooStore

TINY = """
name = "tiny"
[every]
family = "mlp"
data = "digits"
dropout = 0.0
decay = 0.0
label_noise = 0.0
optimiser = "adam"
batch = 32
rate = 2.0
depth = 1
size = 200
target = 0.5
most = 600
[[star]]
name = "a"
seeds = [0, 1]
centre = { width = 12 }
[star.vary]
width = [8, 16]
rate = [1.0, 3.0]
size = [150]
"""


@pytest.fixture
def declared(tmp_path: Path) -> Path:
    path = tmp_path / "tiny.toml"
    path.write_text(TINY)
    return path


def test_a_star_is_its_centre_and_each_knob_at_a_time(declared: Path) -> None:
    tiny = load_zoo(declared)
    assert len(tiny.specs) == 12
    assert {s.width for s in tiny.specs if s.rate != 2.0} == {12}
    assert set(tiny.block.values()) == {"a"}


def test_the_standard_zoo_has_three_hundred_networks_of_four_families() -> None:
    specs = load_zoo("standard").specs
    assert len(specs) >= 300
    counts = {f: sum(s.family == f for s in specs) for f in ("mlp", "conv", "recurrent", "transformer")}
    assert min(counts.values()) >= 100
    assert "small" in shipped_zoos()


@pytest.mark.parametrize(
    ("change", "error", "word"),
    [
        ("width = [8, 16]", "widht = [8, 16]", "widht"),
        ("rate = 2.0", 'rate = "fast"', "rate"),
        ("depth = 1\n", "", "depth"),
        ('data = "digits"', 'data = "digits', "TOML"),
    ],
)
def test_a_faulty_declaration_is_refused_in_one_sentence(tmp_path: Path, change: str, error: str, word: str) -> None:
    path = tmp_path / "faulty.toml"
    path.write_text(TINY.replace(change, error))
    with pytest.raises((SettingsError, DataError), match=word):
        load_zoo(path)


def test_an_unknown_family_is_refused_before_anything_is_trained(tmp_path: Path) -> None:
    path = tmp_path / "faulty.toml"
    path.write_text(TINY.replace('family = "mlp"', 'family = "kan"'))
    with pytest.raises(SettingsError, match="kan"):
        train_zoo(path, out=tmp_path / "store", settings=WorkSettings(workers=1, stages=("train", "outcomes")))


def test_a_second_run_trains_nothing_and_a_change_trains_only_what_it_must(declared: Path, tmp_path: Path) -> None:
    settings = WorkSettings(workers=1, stages=("train", "outcomes"))
    first = train_zoo(declared, out=tmp_path / "store", settings=settings)
    times = {p.name: p.stat().st_mtime_ns for p in (tmp_path / "store" / "trained").iterdir()}
    assert len(times) == 12
    train_zoo(declared, out=tmp_path / "store", settings=settings)
    declared.write_text(TINY.replace("size = [150]", "size = [150, 160]"))
    again = train_zoo(declared, out=tmp_path / "store", settings=settings)
    after = {p.name: p.stat().st_mtime_ns for p in (tmp_path / "store" / "trained").iterdir()}
    assert len(after) == 14
    assert {n: after[n] for n in times} == times
    assert first.to_dict()["blocks"][0]["trained"] == 12
    assert again.to_dict()["blocks"][0]["at_target"] == 14


def test_outcomes_join_networks_and_a_packed_copy_says_the_same(declared: Path, tmp_path: Path) -> None:
    store = train_zoo(
        declared, out=tmp_path / "store", settings=WorkSettings(workers=1, stages=("train", "outcomes"))
    ).store
    table = store.table()
    assert len(table) == 12
    assert (table["train_loss"] - 0.5).abs().max() < 1e-3
    assert table["test_loss"].min() > 0.1
    assert store.has_results()
    assert not store.has_results(["another"])
    packed = store.pack(tmp_path / "packed")
    assert packed.digest() == store.digest()
    assert packed.trained_keys() == store.trained_keys()
    assert packed.table().sort("key").equals(table.sort("key"))


def test_a_damaged_file_is_one_sentence(declared: Path, tmp_path: Path) -> None:
    store = train_zoo(declared, out=tmp_path / "store", settings=WorkSettings(workers=1, stages=("train",))).store
    next((tmp_path / "store" / "trained").iterdir()).write_bytes(b"PAR1")
    with pytest.raises(RunFolderError, match="damaged"):
        store.rows("trained")


def _started(declared: Path, folder: Path) -> subprocess.Popen[bytes]:
    command = [
        sys.executable,
        "-m",
        "memspace",
        "zoo",
        "run",
        str(declared),
        "--out",
        str(folder),
        "--workers",
        "1",
        "--stages",
        "train,outcomes",
    ]
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    return subprocess.Popen(command, start_new_session=True, env=os.environ | {"OMP_NUM_THREADS": "1"}, **quiet)


def test_killed_twenty_times_at_random_no_network_is_lost_or_repeated(declared: Path, tmp_path: Path) -> None:
    declared.write_text(TINY.replace("target = 0.5", "target = 0.02").replace("most = 600", "most = 900"))
    folder = tmp_path / "store"
    rng = random.Random(0)
    seen: dict[str, int] = {}
    weights: dict[str, bytes] = {}
    kills, working = 0, 4.0  # seconds from the start of a process to its first network, learned from the first run
    while kills < 20:
        began = time.monotonic()
        process = _started(declared, folder)
        until = began + rng.uniform(0.3, 1.0) * working + rng.uniform(0.0, 1.5)
        while process.poll() is None and time.monotonic() < until:
            time.sleep(0.02)
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            kills += 1
        else:
            break  # all is trained: no more to kill
        process.wait()
        now = {p.stem: p.stat().st_mtime_ns for p in (folder / "trained").glob("*.parquet")}
        assert {k: now.get(k) for k in seen} == seen  # none lost, none written again
        for key in now.keys() - seen.keys():
            weights[key] = (folder / "weights" / f"{key}.safetensors").read_bytes()
        seen = now
    process = _started(declared, folder)
    assert process.wait(timeout=240) == 0
    reference = train_zoo(
        declared, out=tmp_path / "reference", settings=WorkSettings(workers=1, stages=("train", "outcomes"))
    ).store
    store = ZooStore(folder)
    assert store.digest() == reference.digest()  # the same networks as one run that nobody killed, to the last bit
    for key, content in weights.items():
        assert (folder / "weights" / f"{key}.safetensors").read_bytes() == content


def test_two_writers_at_once_leave_one_store(declared: Path, tmp_path: Path) -> None:
    folder = tmp_path / "store"
    processes = [_started(declared, folder) for _ in range(2)]
    assert [p.wait(timeout=240) for p in processes] == [0, 0]
    reference = train_zoo(
        declared, out=tmp_path / "reference", settings=WorkSettings(workers=1, stages=("train", "outcomes"))
    ).store
    assert ZooStore(folder).digest() == reference.digest()
    assert isinstance(ZooStore(folder).rows("trained"), pl.DataFrame)


def test_tables_of_a_store_are_what_claims_are_judged_on(declared: Path, tmp_path: Path) -> None:
    store = train_zoo(declared, out=tmp_path / "store", settings=WorkSettings(workers=1, stages=("train",))).store
    results = ZooResults([store])
    population = Population(families=("mlp",), zoo="tiny", fitted=True, moment=1.0)
    assert is_zoo(tmp_path / "store")
    assert not results.has_results(population)  # a training loss is no outcome
    with pytest.raises(DataError, match="no table"):
        results.table()
    train_zoo(declared, out=tmp_path / "store", settings=WorkSettings(workers=1, stages=("outcomes",)))
    assert results.has_results(population)
    assert not results.has_results(replace(population, families=("conv",)))
    table = population.select(results.table())
    assert len(table) == 12
    assert (table["gap_loss"] - (table["test_loss"] - table["train_loss"])).abs().max() == 0
    assert (table["loss_then"] - 0.5).abs().max() < 1e-3
    early = replace(population, moment=0.1).select(results.table())
    assert (early["loss_then"] > early["train_loss"]).all()  # the outcome is that at the end
    assert early["gap_loss"].to_list() == table["gap_loss"].to_list()
