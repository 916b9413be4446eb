"""The stage ``memory``: rows of networks on shapes, shares cut in closed form, and the claims that rest on them."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

from memspace.claims.reading import REGISTERED, registrations
from memspace.claims.run import judge_claims
from memspace.errors import SettingsError
from memspace.measures.efficiency import PruningCurve
from memspace.verbs.zoo import WorkSettings, train_zoo
from memspace.zoo.declaration import load_zoo
from memspace.zoo.factored.cuts import share_cut
from memspace.zoo.factored.row import CUTS, MEASURED
from memspace.zoo.factored.settings import FactoredSettings
from memspace.zoo.measuring import GROUPS
from memspace.zoo.measuring_settings import ZooSettings
from memspace.zoo.results import ZooResults
from memspace.zoo.stages.measures import measuring_pieces
from memspace.zoo.stages.memory import MemoryPiece, memory_pieces
from memspace.zoo.store import ZooStore
from tests.claims.examples import locked

CLAIMS = ("03-orthogonal", "04-invariants", "04-invariants-sharpness", "05-ties", "05-ties-volume")
TINY = """
name = "factors"
factored = true
[every]
data = "shapes"
dropout = 0.0
decay = 0.0
label_noise = 0.0
optimiser = "adam"
batch = 50
rate = 2.0
depth = 1
size = 100
target = 2.0
most = 300
[[star]]
name = "mlp"
seeds = [0]
centre = { family = "mlp", width = 8 }
[[star]]
name = "conv"
seeds = [0]
centre = { family = "conv", width = 3 }
"""
QUICK = FactoredSettings(attacked=12, steps=2, restarts=0, bisections=2, judged=50)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> ZooStore:
    """Two networks with all that the claims are judged on, registered before; measures of these groups alone."""
    folder = tmp_path_factory.mktemp("factors")
    texts = [(REGISTERED / f"{name}.toml").read_text(encoding="utf-8") for name in CLAIMS]
    locked(folder / "registered", *(text.replace("repeats = 200", "repeats = 5") for text in texts))
    (folder / "factors.toml").write_text(TINY)
    monkeypatch = pytest.MonkeyPatch()
    monkeypatch.setattr("memspace.measures.disentanglement.SAMPLES", 200)  # forests take most of the time
    monkeypatch.setattr("memspace.zoo.stages.measures.MOMENTS", (1.0,))  # none of the claims asks for earlier ones
    stages = WorkSettings(1, stages=("train", "outcomes"))
    made = train_zoo(folder / "factors.toml", out=folder / "zoo", settings=stages)
    named = {"complexity", "norms", "hessian"}
    measured = ZooSettings(examples=20, rows=240, without=tuple(g for g in GROUPS if g not in named))
    for piece in (
        *memory_pieces(made.declared, made.store, None, QUICK),
        *measuring_pieces(made.declared, made.store, None, measured),
    ):
        piece()
    monkeypatch.undo()
    return made.store


def test_every_network_has_a_row_with_errors_next_to_outcomes_and_measures(tiny: ZooStore) -> None:
    table = ZooResults([tiny]).table("memory")
    assert table.height == 2
    assert {"family", "seed", "gap_loss", "log_parameters", "complexity.fisher_rao", "norms.squared"} <= set(
        table.columns
    )
    assert table["moment"].to_list() == [1.0] * 2
    for row in table.iter_rows(named=True):
        expected = row["offered_bits"] - 100 * row["train_loss"] / math.log(2)
        assert row["stored_bits"] == pytest.approx(expected, rel=1e-4)
        for name in (*CUTS, *MEASURED):
            if row[name] is None:
                assert name in row["doubts"]
            elif row[f"{name}_low"] is not None:
                assert row[f"{name}_low"] <= row[name] <= row[f"{name}_high"]
        assert all(row[name] is not None and 0 <= row[name] <= 1 for name in CUTS)
        assert row["input.distance_l2"] > 0
        assert row["disentanglement.dci_n"] == 200


def test_what_has_a_row_is_not_measured_again_unless_the_settings_change(tiny: ZooStore) -> None:
    zoo = load_zoo(tiny.folder.parent / "factors.toml")
    assert memory_pieces(zoo, tiny, None, QUICK) == []
    (piece, *_) = memory_pieces(zoo, tiny, None, replace(QUICK, attacked=13))
    assert MemoryPiece(piece.specs, tiny.folder, None, QUICK)() == 0
    assert memory_pieces(replace(zoo, factored=False), tiny, None) == []


def test_data_without_factors_are_refused_in_one_sentence(tiny: ZooStore) -> None:
    spec = replace(load_zoo(tiny.folder.parent / "factors.toml").specs[0], data="digits")
    with pytest.raises(SettingsError, match="factors of 'digits' are not known"):
        MemoryPiece((spec,), tiny.folder, None, QUICK)()


def test_the_claims_load_and_two_networks_leave_them_undecided(tiny: ZooStore) -> None:
    results = judge_claims(store=tiny.folder, registered=tiny.folder.parent / "registered")
    assert results.verdicts == dict.fromkeys(CLAIMS, "undecided")
    for claim in results.claims:
        assert claim.evidence.networks == 2
        for verdict in claim.record.effects.values():
            assert "units of analysis" in verdict.reason


def test_a_shipped_zoo_has_what_the_claims_count_on() -> None:
    zoo = load_zoo("factors")
    assert zoo.factored
    assert len(zoo.specs) >= 80
    assert {s.seed for s in zoo.specs} == {10, 11}
    by_family = {f: {s.configuration for s in zoo.specs if s.family == f} for f in ("mlp", "conv")}
    assert len(zoo.specs) == 2 * sum(len(c) for c in by_family.values())  # two seeds of each
    ours = [r for r in registrations() if r.id in CLAIMS]
    assert len(ours) == len(CLAIMS)
    for registration in ours:
        assert registration.population.zoo == zoo.name
        assert registration.population.moment == 1.0
        assert registration.sample.units <= min(len(c) for c in by_family.values())


def curve(*losses: float, spread: float = 0.01) -> PruningCurve:
    values = np.array(losses)
    ends = np.stack([values - spread, values + spread], 1)
    kept = np.linspace(1.0, 0.5, len(losses))
    return PruningCurve("magnitude", kept, np.array([]), np.array([]), values, ends, np.array([]), 50)


def test_the_share_cut_is_where_the_loss_has_risen_so_far() -> None:
    straight = share_cut(curve(0.3, 0.35, 0.4, 0.5, 0.6, 0.7), 0.15)  # between 0.3 and 0.2 of the weights cut
    assert straight.value == pytest.approx(0.25)
    # Upper ends cross 0.45 at a loss of 0.44, lower ends at 0.46; a tenth of the weights for 0.1 nats.
    assert straight.interval == pytest.approx((0.24, 0.26))
    assert share_cut(curve(0.3, 0.31, 0.32), 0.15).value == pytest.approx(0.5)
    assert share_cut(curve(0.3, 0.9, 0.3), 0.15).value == pytest.approx(0.25 * 0.15 / 0.6)
    falling = share_cut(curve(0.3, 0.2, 0.5, spread=0.0), 0.1)
    assert falling.value == pytest.approx(0.25 + 0.25 * 2 / 3)
    assert share_cut(curve(0.3, 0.35, spread=0.2), 0.15).interval == pytest.approx((0.0, 0.5))
