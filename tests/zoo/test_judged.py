"""Judging a store: a measure that is the gap comes out first, one that is noise does not, and the command says so."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from memspace.cli import app
from memspace.errors import DataError
from memspace.zoo.judged import COMBINATION, judge_zoo, measures_in, networks_of
from memspace.zoo.store import ZooStore


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two families, two stars each: the gap follows width and size, and one measure follows the gap."""
    folder = tmp_path_factory.mktemp("zoo") / "store"
    made, rng = ZooStore(folder), np.random.default_rng(5)
    settings = [(w, n, s) for w in (8, 16, 32) for n in (100, 200, 400) for s in (0, 1)]
    for family in ("mlp", "conv"):
        for width, size, seed in settings:
            key = f"{family}-{width}-{size}-{seed}"
            gap = 2 - 0.2 * np.log(size) + 0.1 * np.log(width) + 0.02 * rng.normal()
            network = {"family": family, "data": "digits", "width": width, "depth": 1, "rate": 1.0, "batch": 32}
            rest = {"decay": 0.0, "dropout": 0.0, "label_noise": 0.0, "size": size, "optimiser": "adam", "seed": seed}
            about = {"start": "fresh", "permuted": False, "parameters": 10 * width, "reached": True, "zoo": "made"}
            curve = {"curve_steps": [0.0, 10.0], "curve_losses": [2.3, 0.2], "block": family}
            row = {"key": key, "configuration": key[:-2], **network, **rest, **about, **curve}
            made.add_rows("trained", key, [row])
            ends = {"train_loss": 0.2, "test_loss": 0.2 + gap, "train_accuracy": 0.95, "test_accuracy": 0.7}
            more = {"share_of_steps": 1.0, "test_loss_error": 0.02, "test_examples": 1000}
            made.add_rows("outcomes", key, [{"key": key, "moment": 1.0, **ends, **more}])
            values = {"fisher.trace": gap + 0.05 * rng.normal(), "gradients.coherence": rng.normal()}
            made.add_rows(
                "measured", key, [{"key": key, "moment": 1.0, "name": n, "value": v} for n, v in values.items()]
            )
    return folder


def test_the_measure_that_follows_the_gap_is_told_from_noise(store: Path) -> None:
    results = judge_zoo(store, draws=100)
    rows = {r["measure"]: r for r in results.judgement.frame.to_dicts()}
    assert rows["fisher.trace"]["tau_low"] > 0.5
    assert rows["fisher.trace"]["psi"] > 0.5
    assert rows["gradients.coherence"]["tau_low"] < 0.2 < rows["fisher.trace"]["tau"]
    assert set(rows) == {"fisher.trace", "gradients.coherence", COMBINATION}
    assert "2 measures" not in str(results)


def test_families_are_judged_by_themselves_where_asked(store: Path) -> None:
    results = judge_zoo(store, draws=50, measures=["fisher.trace"], families=True)
    assert set(results.families) == {"mlp", "conv"}
    assert all(j.frame["tau"][0] > 0.5 for j in results.families.values())


def test_only_measures_that_vary_are_judged(store: Path) -> None:
    assert measures_in(networks_of(ZooStore(store))) == ["fisher.trace", "gradients.coherence"]
    with pytest.raises(DataError, match="no network"):
        networks_of(ZooStore(store), moment=0.1)


def test_the_command_prints_and_writes_the_statistics(store: Path, tmp_path: Path) -> None:
    out = tmp_path / "judged.parquet"
    done = CliRunner().invoke(app, ["zoo", "judge", str(store), "--draws", "50", "--out", str(out), "--quiet"])
    assert done.exit_code == 0
    assert out.stat().st_size > 0
    done = CliRunner().invoke(app, ["zoo", "judge", str(store), "--draws", "50", "--json"])
    assert {m["measure"] for m in json.loads(done.stdout)["measures"]} >= {"fisher.trace"}
