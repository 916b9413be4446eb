"""The calibrated line: it finds a known relation, says what it does not cover, and is read back exactly."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from memspace.errors import DataError, SettingsError
from memspace.gap.domain import NetworkFacts
from memspace.gap.file import load_gap_model, save_gap_model, shipped_gap_model
from memspace.gap.fit import fit_gap
from memspace.gap.line import fit_line
from memspace.gap.model import LOG_RATIO, LOSS_GAP, GapModel
from tests.gap.made import TRAIN, made_zoo

FACTS = NetworkFacts("categorical", 10)
MIDDLE = {"generalisation.train_loss": TRAIN, "generalisation.tic_gap": 1.0, "margins.mean": 0.0} | {
    "gradients.coherence": 0.0
}


@pytest.fixture(scope="module")
def model() -> GapModel:
    return fit_gap(made_zoo(0, between=0.02, within=0.02), settings={"seed": 0}, store="abc")


def test_a_line_is_weighted_least_squares_where_the_penalty_is_small() -> None:
    r = np.random.default_rng(5)
    group = np.repeat(np.arange(6), [3, 9, 4, 20, 5, 8])
    x = r.standard_normal((len(group), 3)) * [1, 10, 0.1] + [0, 5, 100]
    y = 2 + x @ [1.0, -0.3, 4.0]
    line = fit_line(x, y, group)
    assert line.weights == pytest.approx([1.0, -0.3, 4.0], rel=2e-3)  # the smallest penalty is 1e-4
    root = np.sqrt(1 / np.bincount(group)[group])
    exact = np.linalg.lstsq(np.c_[np.ones(len(x)), x] * root[:, None], y * root, rcond=None)[0]
    assert line.values(x) == pytest.approx(np.c_[np.ones(len(x)), x] @ exact, abs=1e-2)
    weight = root**2 / (root**2).sum()
    assert line.centre == pytest.approx(weight @ x)
    assert weight @ line.distances(x) == pytest.approx(3, rel=2e-2)  # tr C⁻¹C
    assert line.errors(np.array([line.centre]))[0] == pytest.approx(1)


def test_a_known_relation_is_found(model: GapModel) -> None:
    tier = model.tiers[0]
    assert tier.target == LOG_RATIO
    assert dict(zip(tier.predictors, tier.whole.weights, strict=True)) == pytest.approx(
        {"generalisation.tic_gap": 0.4, "margins.mean": -0.2, "gradients.coherence": 0.0}, abs=0.02
    )
    told = model.predict({**MIDDLE, "generalisation.tic_gap": math.e}, FACTS)
    assert told.test_loss == pytest.approx(math.exp(-0.1), rel=0.05)
    assert told.gap == pytest.approx(told.test_loss - TRAIN)
    assert told.gap_interval[0] < told.gap < told.gap_interval[1]
    assert told.reliable
    assert not told.note
    assert next(iter(told.drivers)) == "generalisation.tic_gap"
    assert "90% interval" in told.how
    assert "at least 80%" in told.how


def test_gaps_that_are_even_are_told_as_they_are() -> None:
    table = made_zoo(1, between=0.02, within=0.02)
    gap = 3 + pl.col("generalisation.tic_gap").log() - 0.9 * pl.col("margins.mean")
    even = table.with_columns(test_loss=pl.col("train_loss") + gap.clip(0.01))
    assert fit_gap(even).tiers[0].target == LOSS_GAP


@pytest.mark.parametrize(
    ("changed", "facts", "says"),
    [
        ({}, NetworkFacts("bernoulli", 10), "the output law bernoulli (calibrated: categorical)"),
        ({}, NetworkFacts("categorical", 1000), "1000 outputs (calibrated: 10 to 10)"),
        ({}, NetworkFacts("categorical", 10, True), "predictions at every position"),
        ({"generalisation.train_loss": 0.01}, FACTS, "a training loss of 0.01 (the nearest calibrated one: 0.2)"),
        ({"margins.mean": 40.0}, FACTS, "margins.mean 40 (calibrated: "),
        ({"generalisation.tic_gap": 1e6}, FACTS, "generalisation.tic_gap 1e+06"),
    ],
)
def test_what_lies_outside_is_named_and_not_relied_on(
    model: GapModel, changed: dict[str, float], facts: NetworkFacts, says: str
) -> None:
    told = model.predict({**MIDDLE, **changed}, facts)
    assert not told.reliable
    assert told.note.startswith("outside of what was calibrated: ")
    assert says in told.note
    assert "\n" not in told.note


def test_a_combination_that_no_network_has_lies_outside_too() -> None:
    """Two measures that always go together, each inside its range: apart they are outside."""
    table = made_zoo(2)
    table = table.with_columns(pl.Series("margins.mean", np.log(table["generalisation.tic_gap"].to_numpy())))
    model = fit_gap(table)
    inside = {**MIDDLE, "generalisation.tic_gap": math.exp(1.0), "margins.mean": 1.0}
    assert model.predict(inside, FACTS).reliable
    told = model.predict({**inside, "margins.mean": -1.0}, FACTS)
    assert not told.reliable
    assert "measures in a combination" in told.note


def test_networks_with_known_start_are_told_by_more() -> None:
    table = made_zoo(4)
    table = table.with_columns(pl.Series("norms.distance", np.exp(np.random.default_rng(0).standard_normal(120))))
    model = fit_gap(table)
    assert [t.name for t in model.tiers] == ["training", "network"]
    assert model.predict({**MIDDLE, "norms.distance": 1.0}, FACTS).tier == "training"
    assert model.predict(MIDDLE, FACTS).tier == "network"


def test_what_a_network_lacks_is_one_sentence(model: GapModel) -> None:
    with pytest.raises(DataError, match=r"no margins\.mean that the calibration can use"):
        model.predict({k: v for k, v in MIDDLE.items() if k != "margins.mean"}, FACTS)
    with pytest.raises(DataError, match="no training loss above zero"):
        model.predict({**MIDDLE, "generalisation.train_loss": 0.0}, FACTS)


def test_what_is_not_used_says_why() -> None:
    table = made_zoo(0).with_columns(
        pl.when(pl.int_range(120) < 60).then(1.0).alias("margins.lower"), pl.lit(2.0).alias("gradients.norm")
    )
    model = fit_gap(table)
    assert model.left_out["margins.lower"] == "60 of 120 networks have it"
    assert model.left_out["gradients.norm"] == "it is the same for all networks"
    assert model.left_out["generalisation.train_loss"] == "the networks were trained to one training loss"
    assert model.left_out["norms.squared"] == "it was not measured"
    for column in ("block", "outputs"):
        with pytest.raises(DataError, match=f"no column '{column}'"):
            fit_gap(table.drop(column))
    with pytest.raises(DataError, match="lack all that the gap is told by"):
        fit_gap(table.select("block", "train_loss", "test_loss", "outputs", "sequence"))
    with pytest.raises(SettingsError, match="level"):
        fit_gap(table, level=1.0)


def test_a_file_is_read_back_exactly(model: GapModel, tmp_path: Path) -> None:
    path = tmp_path / "gap.json"
    digest = save_gap_model(model, path)
    again = load_gap_model(path)
    assert again == model
    assert save_gap_model(again, tmp_path / "again.json") == digest
    assert again.predict(MIDDLE, FACTS) == model.predict(MIDDLE, FACTS)


def _changed(text: str) -> str:
    content = json.loads(text)
    content["tiers"][0]["whole"]["intercept"] += 1
    return json.dumps(content)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (_changed, "its content is not what its hash was made of"),
        (lambda _: "{", "no calibration of the gap"),
        (lambda _: "[1]", "no calibration of the gap"),
        (lambda _: "{}", "no calibration of the gap"),
        (lambda text: text[: len(text) // 2], "no calibration of the gap"),
        (lambda _: "\udc80", "no text"),
    ],
)
def test_a_bad_file_is_one_sentence(model: GapModel, tmp_path: Path, change, says: str) -> None:
    path = tmp_path / "gap.json"
    save_gap_model(model, path)
    path.write_text(change(path.read_text(encoding="utf-8")), encoding="utf-8", errors="surrogateescape")
    with pytest.raises(DataError, match=says) as told:
        load_gap_model(path)
    assert "\n" not in str(told.value)
    with pytest.raises(DataError, match="cannot be read"):
        load_gap_model(tmp_path / "nowhere.json")


def test_a_calibration_is_shipped() -> None:
    shipped = shipped_gap_model()
    assert shipped is not None
    assert len(shipped.groups) >= 9
    assert shipped.networks >= 300
