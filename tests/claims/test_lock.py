"""Registering comes before results, and a run keeps to what was registered."""

from __future__ import annotations

import datetime

import polars as pl
import pytest

from memspace.claims.lock import check_registered, read_lock, refuse_older, register
from memspace.claims.reading import chosen_registrations
from memspace.claims.run import judge_claims
from memspace.claims.store import ParquetStore
from memspace.errors import DataError, RunFolderError, SettingsError
from tests.claims.examples import PAIRS, RANK, locked, stored, written
from tests.claims.synthetic import zoo


def chosen(folder):
    return chosen_registrations((), folder)


def test_registering_locks_the_hash_and_does_it_once(tmp_path) -> None:
    folder = written(tmp_path / "registered", RANK, PAIRS)
    store = ParquetStore(tmp_path / "store")
    assert register(chosen(folder), folder, store) == ["01-rank", "02-pairs"]
    before = (folder / "hashes.toml").read_text()
    assert register(chosen(folder), folder, store) == []
    assert (folder / "hashes.toml").read_text() == before
    for registration in chosen(folder):
        assert check_registered(registration, folder).sha256 == registration.hash()


def test_registering_is_refused_once_there_are_results_and_then_locks_nothing(tmp_path) -> None:
    folder = written(tmp_path / "registered", RANK, PAIRS)
    store = ParquetStore(stored(tmp_path / "store", zoo(families=("mlp",))))
    with pytest.raises(RunFolderError, match=r"before its networks have results.*01-rank"):
        register(chosen(folder), folder, store)
    assert not (folder / "hashes.toml").exists()
    other = ParquetStore(stored(tmp_path / "other", zoo(families=("transformer",))))
    assert register(chosen(folder), folder, other) == ["01-rank", "02-pairs"]  # not the claims' networks


def test_a_changed_claim_is_refused_until_it_is_registered_again_for_networks_without_results(tmp_path) -> None:
    folder = locked(tmp_path / "registered", RANK)
    first = read_lock(folder)["01-rank"].sha256
    store = stored(tmp_path / "store", zoo())
    written(folder, RANK.replace("families = 2", "families = 1"))
    with pytest.raises(SettingsError, match=f"not as it was registered.*not {first[:12]}"):
        judge_claims(store=store, registered=folder)
    with pytest.raises(RunFolderError, match="already has some"):
        register(chosen(folder), folder, ParquetStore(store))
    assert register(chosen(folder), folder, ParquetStore(tmp_path / "none")) == ["01-rank"]
    assert read_lock(folder)["01-rank"].former == (first,)


def test_a_claim_that_is_not_registered_is_not_judged(tmp_path) -> None:
    folder = written(tmp_path / "registered", RANK)
    with pytest.raises(SettingsError, match="the claim is not registered"):
        judge_claims(store=stored(tmp_path / "store", zoo()), registered=folder)


@pytest.mark.parametrize("text", ["[01-rank]\nsha256 = 'x'\n", "[01-rank", "a = 1\n"])
def test_a_damaged_lock_is_named(tmp_path, text: str) -> None:
    folder = written(tmp_path / "registered", RANK)
    (folder / "hashes.toml").write_text(text)
    with pytest.raises(SettingsError, match="the lock cannot be read"):
        read_lock(folder)


@pytest.mark.parametrize("as_text", [True, False])
def test_networks_older_than_the_registration_are_refused(tmp_path, as_text: bool) -> None:
    folder = locked(tmp_path / "registered", RANK)
    (registration,) = chosen(folder)
    lock = read_lock(folder)["01-rank"]
    then = datetime.datetime.fromisoformat(lock.registered)
    for days, refused in ((-1, True), (1, False)):
        at = then + datetime.timedelta(days=days)
        value = at.isoformat() if as_text else at.replace(tzinfo=None)
        table = zoo(configurations=(1, 1, 1)).with_columns(finished=pl.lit(value))
        if refused:
            with pytest.raises(RunFolderError, match="before the claim was registered"):
                refuse_older(table, registration, lock)
        else:
            refuse_older(table, registration, lock)
    with pytest.raises(DataError, match="holds no times"):
        refuse_older(zoo(configurations=(1, 1, 1)).with_columns(finished=pl.lit(3)), registration, lock)
