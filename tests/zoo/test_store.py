"""Declarations, the store and its pieces of work: nothing finished is lost or repeated, whoever is killed when."""

from __future__ import annotations

import random
import shutil
import subprocess
import sys
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
from tests import warm
from tests.zoo import declared as declared_zoo

TINY = declared_zoo.TINY.replace("target = 0.1", "target = 0.5")
ALONE = WorkSettings(workers=1, stages=("train", "outcomes"))


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The store of the tiny zoo, trained once for all tests here: they read it, or change a copy."""
    folder = tmp_path_factory.mktemp("finished")
    (folder / "tiny.toml").write_text(TINY)
    return train_zoo(folder / "tiny.toml", out=folder / "store", settings=ALONE).store.folder


@pytest.fixture
def copied(finished: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(finished, tmp_path / "store"))


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


def test_a_second_run_trains_nothing_and_a_change_trains_only_what_it_must(declared: Path, copied: Path) -> None:
    times = {p.name: p.stat().st_mtime_ns for p in (copied / "trained").iterdir()}
    assert len(times) == 12
    second = train_zoo(declared, out=copied, settings=ALONE)
    assert {p.name: p.stat().st_mtime_ns for p in (copied / "trained").iterdir()} == times
    declared.write_text(TINY.replace("size = [150]", "size = [150, 160]"))
    again = train_zoo(declared, out=copied, settings=ALONE)
    after = {p.name: p.stat().st_mtime_ns for p in (copied / "trained").iterdir()}
    assert len(after) == 14
    assert {n: after[n] for n in times} == times
    assert second.to_dict()["blocks"][0]["trained"] == 12
    assert again.to_dict()["blocks"][0]["at_target"] == 14


def test_outcomes_join_networks_and_a_packed_copy_says_the_same(finished: Path, tmp_path: Path) -> None:
    store = ZooStore(finished)
    table = ZooResults([store]).table().filter(pl.col("moment") == 1.0)
    assert len(table) == 12
    assert (table["train_loss"] - 0.5).abs().max() < 1e-3
    assert table["test_loss"].min() > 0.1
    assert store.has_results()
    assert not store.has_results(["another"])
    packed = store.pack(tmp_path / "packed")
    assert packed.digest() == store.digest()
    assert packed.trained_keys() == store.trained_keys()
    again = ZooResults([packed]).table().filter(pl.col("moment") == 1.0)
    assert again.sort("key").equals(table.sort("key"))


def test_a_damaged_file_is_one_sentence(copied: Path) -> None:
    next((copied / "trained").iterdir()).write_bytes(b"PAR1")
    with pytest.raises(RunFolderError, match="damaged"):
        ZooStore(copied).rows("trained")


# Imports everything once, then forks a run of the zoo for each delay it is told, and kills it after so many seconds; 0
# lets it end. Answers with whether it had to be killed.
KILLER = """
import os, signal, sys, time
from pathlib import Path
import torch
torch.set_num_threads(1)
import polars
from memspace.verbs.zoo import WorkSettings, train_zoo
settings = WorkSettings(1, stages=("train", "outcomes"))
for line in sys.stdin:
    delay = float(line)
    child = os.fork()
    if child == 0:
        train_zoo(Path(sys.argv[1]), out=sys.argv[2], settings=settings)
        os._exit(0)
    until = time.monotonic() + delay
    while delay and time.monotonic() < until and not os.waitpid(child, os.WNOHANG)[0]:
        time.sleep(0.005)
    killed = False
    if delay:
        try:
            os.kill(child, signal.SIGKILL)
            killed = True
        except ProcessLookupError:
            pass
    if killed or not delay:
        os.waitpid(child, 0)
    print(int(killed), flush=True)
"""


def test_killed_twenty_times_at_random_no_network_is_lost_or_repeated(declared: Path, tmp_path: Path) -> None:
    declared.write_text(
        TINY.replace("target = 0.5", "target = 0.05").replace("size = [150]", "batch = [4, 8, 12, 16, 20, 24]")
    )
    folder, rng = tmp_path / "store", random.Random(0)
    command = [sys.executable, "-c", KILLER, str(declared), str(folder)]
    seen: dict[str, int] = {}
    kills = 0
    # polars and torch keep no threads across a fork here: the parent computes nothing.
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        while kills < 20:
            print(rng.uniform(0.02, 0.3), file=process.stdin, flush=True)
            killed = int(process.stdout.readline())
            assert killed, f"the zoo was through after {kills} kills: declare more networks"
            kills += killed
            now = {p.stem: p.stat().st_mtime_ns for p in (folder / "trained").glob("*.parquet")}
            assert {k: now.get(k) for k in seen} == seen  # none lost, none written again
            seen = now
        print(0, file=process.stdin, flush=True)
        assert process.stdout.readline() == "0\n"
        process.stdin.close()
    reference = train_zoo(declared, out=tmp_path / "reference", settings=ALONE).store
    store = ZooStore(folder)
    assert store.digest() == reference.digest()  # the same networks as one run that nobody killed, to the last bit
    for path in (tmp_path / "reference" / "weights").iterdir():
        assert (folder / "weights" / path.name).read_bytes() == path.read_bytes()


# Two processes that train the same zoo in the same folder, begun at once.
WRITERS = """
import os, sys
from memspace.verbs.zoo import WorkSettings, train_zoo
other = os.fork()
train_zoo(sys.argv[1], out=sys.argv[2], settings=WorkSettings(1, stages=("train", "outcomes")))
sys.exit(os.waitstatus_to_exitcode(os.waitpid(other, 0)[1]) if other else 0)
"""


def test_two_writers_at_once_leave_one_store(declared: Path, finished: Path, tmp_path: Path) -> None:
    folder = tmp_path / "store"
    done = warm.python(tmp_path, WRITERS, str(declared), str(folder))
    assert done.returncode == 0, done.stderr
    assert ZooStore(folder).digest() == ZooStore(finished).digest()
    assert isinstance(ZooStore(folder).rows("trained"), pl.DataFrame)


def test_tables_of_a_store_are_what_claims_are_judged_on(declared: Path, copied: Path) -> None:
    shutil.rmtree(copied / "outcomes")
    results = ZooResults([ZooStore(copied)])
    population = Population(families=("mlp",), zoo="tiny", fitted=True, moment=1.0)
    assert is_zoo(copied)
    assert not results.has_results(population)  # a training loss is no outcome
    with pytest.raises(DataError, match="no table"):
        results.table()
    train_zoo(declared, out=copied, settings=WorkSettings(workers=1, stages=("outcomes",)))
    assert results.has_results(population)
    assert not results.has_results(replace(population, families=("conv",)))
    table = population.select(results.table())
    assert len(table) == 12
    assert (table["gap_loss"] - (table["test_loss"] - table["train_loss"])).abs().max() == 0
    assert (table["loss_then"] - 0.5).abs().max() < 1e-3
    early = replace(population, moment=0.1).select(results.table())
    assert (early["loss_then"] > early["train_loss"]).all()  # the outcome is that at the end
    assert early["gap_loss"].to_list() == table["gap_loss"].to_list()
