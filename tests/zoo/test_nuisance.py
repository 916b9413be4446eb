"""Measures under changes that leave a network's function or its decisions alone, and the tables made of them."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import polars as pl
import pytest
import torch

from memspace.claims.sampling import Sampling
from memspace.claims.statistics.invariance import Invariance, invariance
from memspace.errors import DataError
from memspace.judging.fragility import fragility
from memspace.verbs.fragility import fragile_measures
from memspace.zoo.changes import moves_of
from memspace.zoo.declaration import Zoo
from memspace.zoo.measuring_settings import ZooSettings
from memspace.zoo.registry import ZooData
from memspace.zoo.results import ZooResults
from memspace.zoo.specification import NetworkSpec
from memspace.zoo.stages.nuisance import (
    INVARIANT,
    STILL,
    NuisancePiece,
    movements,
    nuisance_pieces,
    sampled_networks,
)
from memspace.zoo.store import ZooStore
from memspace.zoo.training.group import TrainedNetwork, train_group
from tests.zoo.test_training import data_for, spec_of

SLOW = ("learning_coefficient", "pac_bayes", "hessian")  # and none of them is invariant as it is estimated
SETTINGS = ZooSettings(rows=120, labels=2, followed=20, sloped=4, deep=8, without=SLOW)


@pytest.fixture
def small_data(monkeypatch: pytest.MonkeyPatch) -> None:
    def read(name: str, root: Path | None) -> ZooData:
        return data_for(name)

    monkeypatch.setattr("memspace.zoo.stages.nuisance.data_of", read)
    monkeypatch.setattr("memspace.zoo.transforms.GAINS", (0.1, 1.0, 10.0))


def stored(folder: Path, specs: list[NetworkSpec]) -> tuple[Zoo, ZooStore]:
    store = ZooStore(folder)
    for spec in specs:
        (trained,) = train_group([spec], data_for(spec.data))
        store.add_trained(trained, "star", {})
    return Zoo("tiny", "", tuple(specs), {s.key: "star" for s in specs}), store


@pytest.mark.usefixtures("small_data")
@pytest.mark.parametrize("kind", ["mlp", "conv", "recurrent", "character model"])
def test_what_theory_has_unmoved_is_unmoved(kind: str, tmp_path: Path) -> None:
    specs = [spec_of(kind, seed=s, most=60) for s in (0, 1)]
    _, store = stored(tmp_path, specs)
    piece = NuisancePiece((specs[0],), tmp_path, None, (specs[1],), SETTINGS)
    assert piece() == 1
    assert piece() == 0
    summary = movements(store)
    unmoved = summary.filter("invariant")
    assert len(unmoved.filter(pl.col("largest") > STILL)) == 0
    assert unmoved["name"].n_unique() > 0.7 * len(INVARIANT)
    rescaled = {"rescaling"} if kind != "recurrent" else set()
    assert set(unmoved["transform"]) == {"permutation", "dead units", *rescaled}
    moved = summary.filter(pl.col("transform") != "gain", ~pl.col("invariant"))
    assert moved["largest"].max() > 1e-3  # what depends on the parametrisation is seen to
    gained = summary.filter(pl.col("transform") == "gain")
    ranges = dict(gained.select("name", "range").iter_rows())
    assert ranges["margins.mean"] == pytest.approx(100)  # logits from 0.1 to 10 times
    assert ranges["margins.normalised"] == pytest.approx(1)
    table = ZooResults([store]).table("nuisance")
    labels = {"none", "permutation", "dead units", "gain 0.1", "gain 10", *rescaled}
    assert set(table["transform"]) == labels
    family = table["family"][0]
    exact = ("permutation", "dead units")
    arguments = Invariance(("complexity.fisher_rao", "parameters"), ("key",), "transform", exact, ("gain 0.1",))
    evidence = invariance(table, arguments, Sampling(("configuration",), (family,), 100, 0))
    largest = {m: evidence.readings[f"{m}.largest movement.dead units"][0] for m in arguments.measures}
    assert largest["complexity.fisher_rao"].value < STILL
    assert largest["parameters"].value > 0.05


def test_networks_are_chosen_from_the_centre_that_were_fitted(tmp_path: Path) -> None:
    store = ZooStore(tmp_path)
    centre = [spec_of("mlp", seed=s) for s in range(5)]
    others = [spec_of("mlp", seed=s, width=9) for s in range(2)]
    specs = (*others, *centre)
    for spec in specs:
        store.add_trained(_pretended(spec, reached=spec.seed != 1), "star", {})
    zoo = Zoo("tiny", "", specs, {s.key: "star" for s in specs})
    assert [(s.width, s.seed) for s in sampled_networks(zoo, store)] == [(8, 0), (8, 2), (8, 3)]
    pieces = nuisance_pieces(zoo, store, None)
    assert [len(p.sisters) for p in pieces] == [4, 4, 4]
    assert nuisance_pieces(zoo, store.pack(tmp_path / "packed"), None) == []


def test_moves_are_pairs_that_differ_in_one_small_change() -> None:
    centre = [spec_of("mlp", seed=s, rate=1.0) for s in range(9)]
    faster = [spec_of("mlp", seed=s, rate=1.414) for s in range(2)]
    others = [
        spec_of("mlp", rate=1.0, width=16),
        spec_of("mlp", rate=1.0, width=24),
        spec_of("mlp", rate=2.0),
        spec_of("mlp", rate=1.414, batch=8),
    ]
    specs = (*centre, *faster, *others)
    about = [{"key": s.key, "zoo": "made", **asdict(s), "fitted": s != centre[8]} for s in specs]
    ends = [{**row, "moment": 1.0, "a": float(k), "b": 0.0} for k, row in enumerate(about)]
    networks = pl.DataFrame([*ends, *({**row, "moment": 0.1, "a": -1.0} for row in ends)])
    changed = [{"key": centre[0].key, "transform": t, "a": v} for t, v in (("gain 0.1", 7.0), ("permutation", 8.0))]
    moves = moves_of(networks, pl.DataFrame(changed), ["a"])
    place = {s.key: k for k, s in enumerate(specs)}
    pairs = {
        (c, place[b], place.get(k), after) for k, b, c, after in moves.select("key", "base", "change", "after").rows()
    }
    seeds = {("seed", 0, k, float(k)) for k in range(1, 8)} | {("seed", 9, 10, 10.0)}
    rates = {("rate × √2", 0, 9, 9.0), ("rate × √2", 1, 10, 10.0), ("rate × √2", 9, 13, 13.0)}
    assert pairs == seeds | rates | {("width × 2", 0, 11, 11.0), ("gain 0.1", 0, None, 7.0)}
    assert set(moves["measure"]) == {"a"}
    assert fragility(moves)["reason"][0] == "3 networks were changed, fewer than 8"
    assert len(moves_of(networks, None, ["a"])) == len(moves) - 1


def test_shipped_measures_move_as_their_definition_has_it() -> None:
    """A gain moves no normalised margin, and the length of training by more than a seed does."""
    names = ["margins.normalised", "action.length", "norms.distance"]
    results = fragile_measures("shipped", zoo="standard", measures=names)
    moved = {(r["measure"], r["change"]): r["moved"] for r in results.table.to_dicts()}
    assert moved["margins.normalised", "gain 10"] < 1e-4  # measured in float32 before, in float64 after
    assert moved["action.length", "gain 0.1"] > moved["action.length", "seed"] > 0
    assert moved["norms.distance", "width × 2"] > 0
    with pytest.raises(DataError, match="no network has the measure 'nothing'"):
        fragile_measures("shipped", measures=["nothing"])


def _pretended(spec: NetworkSpec, *, reached: bool) -> TrainedNetwork:
    states = ((0.0, torch.zeros(3)), (5.0, torch.ones(3)))
    return TrainedNetwork(spec, reached, 5, 0.4, 1.0, ((0.0, 1.0), (5.0, 0.4)), states)
