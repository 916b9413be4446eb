"""Judging a store: a measure that is the gap comes out first, one that is noise does not, and the command says so."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from memspace.cli import app
from memspace.errors import DataError
from memspace.verbs.judge import LEVEL, ORDER, judge_zoo, measures_in, networks_of
from memspace.zoo.results import ZooResults
from memspace.zoo.store import ZooStore
from tests.zoo.made import made_store


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return made_store(tmp_path_factory.mktemp("zoo") / "store")


def test_the_measure_that_follows_the_gap_is_told_from_noise(store: Path) -> None:
    results = judge_zoo(store, draws=100, workers=1)
    rows = {r["measure"]: r for r in results.judgement.frame.to_dicts()}
    assert rows["fisher.trace"]["tau_low"] > 0.5
    assert rows["fisher.trace"]["psi"] > 0.5
    assert rows["gradients.coherence"]["tau_low"] < 0.2 < rows["fisher.trace"]["tau"]
    assert set(rows) == {"fisher.trace", "gradients.coherence", LEVEL, ORDER}
    assert "2 measures" not in str(results)


def test_families_are_judged_by_themselves_where_asked(store: Path) -> None:
    results = judge_zoo(store, draws=50, measures=["fisher.trace"], families=True, workers=1)
    assert set(results.families) == {"mlp", "conv"}
    assert all(j.frame["tau"][0] > 0.5 for j in results.families.values())


def test_only_measures_that_vary_are_judged(store: Path) -> None:
    opened = ZooResults([ZooStore(store)])
    assert measures_in(networks_of(opened)) == ["fisher.trace", "gradients.coherence"]
    with pytest.raises(DataError, match="no network"):
        networks_of(opened, moment=0.1)


def test_shared_work_changes_no_number(store: Path) -> None:
    names = ["fisher.trace", "gradients.coherence"]
    alone, shared = (judge_zoo(store, measures=names, draws=50, workers=w) for w in (1, 2))
    assert alone.to_dict() == shared.to_dict()


def test_shipped_tables_are_judged_by_their_word_and_zoo() -> None:
    results = judge_zoo("shipped", zoo="standard", measures=["norms.distance"], draws=20, workers=1)
    assert 400 < len(results.table) < 500
    assert set(results.table["zoo"]) == {"standard"}
    with pytest.raises(DataError, match="of the zoo nowhere"):
        judge_zoo("shipped", zoo="nowhere")


def test_the_commands_know_the_word_for_the_shipped_tables() -> None:
    done = CliRunner().invoke(app, ["zoo", "fragility", "shipped", "--zoo", "random-start", "--json"])
    assert done.exit_code == 0, done.output
    refused = CliRunner().invoke(app, ["zoo", "judge", "shipped", "--zoo", "nowhere", "--quiet"])
    assert isinstance(refused.exception, DataError) or "of the zoo nowhere" in refused.output


def test_the_command_prints_and_writes_the_statistics(store: Path, tmp_path: Path) -> None:
    out = tmp_path / "judged.parquet"
    done = CliRunner().invoke(app, ["zoo", "judge", str(store), "--draws", "50", "--out", str(out), "--quiet"])
    assert done.exit_code == 0
    assert out.stat().st_size > 0
    done = CliRunner().invoke(app, ["zoo", "judge", str(store), "--draws", "50", "--json"])
    assert {m["measure"] for m in json.loads(done.stdout)["measures"]} >= {"fisher.trace"}
