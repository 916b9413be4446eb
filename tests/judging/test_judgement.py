"""All statistics in one table; corrections for many measures; tables that cannot be read."""

from __future__ import annotations

import builtins
import math
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from memspace.errors import DataError, MissingPackageError, SettingsError
from memspace.judging.design import JudgingDesign
from memspace.judging.judgement import judge
from memspace.judging.multiplicity import adjusted
from memspace.judging.prediction import Prediction
from memspace.value import Absent
from tests.judging.made import correlated, design, grid, table


def _networks(seeds: int = 4) -> pl.DataFrame:
    rng = np.random.default_rng(0)
    knobs = grid([4, 4], seeds)
    gap, m = correlated(rng, 16, 0.9, seeds, 0.8).T
    noise = rng.standard_normal(len(gap))
    some = np.where(np.arange(len(gap)) < 3, m, np.nan)
    # strong and noise: no zero knob, so that logarithms are taken
    shifted = {k: v + (k != "seed") for k, v in knobs.items()}
    return table(shifted, 0.1 + 0.01 * gap, m=m, turned=-m, noise=noise, some=some, same=np.ones(len(gap)))


def test_every_measure_has_a_row_and_what_is_absent_a_reason() -> None:
    names = ["m", "turned", "noise", "some", "same"]
    seen: list[str] = []
    judgement = judge(_networks(), names, design([4, 4]), directions={"turned": -1}, draws=200, progress=seen.append)
    frame = judgement.frame
    assert seen == frame["measure"].to_list() == names
    assert list(judgement.measures) == ["m", "turned", "noise"]
    assert set(judgement.absent) == {"some", "same"}
    rows = {r["measure"]: r for r in frame.rows(named=True)}
    assert "3 networks" in rows["some"]["reason"]
    assert "same" in rows["same"]["reason"]
    assert rows["some"]["tau"] is None
    m, turned, noise = rows["m"], rows["turned"], rows["noise"]
    assert m["n"] == 64
    for name in ("tau", "psi", "partial_tau", "partial_rho"):
        assert turned[name] == pytest.approx(-m[name])
        assert m[f"{name}_low"] < m[name] < m[f"{name}_high"]
        assert m[f"{name}_p"] <= m[f"{name}_q"] <= m[f"{name}_holm"] < 0.01
        assert noise[f"{name}_p"] > 0.01
    for name in ("error_mean", "error_90", "error_worst", "settings_error_mean", "information"):
        assert turned[name] == pytest.approx(m[name])
    assert m["psi_worst_knob"] in ("k0", "k1")
    assert m["psi_worst"] == min(m["psi_along_k0"], m["psi_along_k1"])
    assert m["error_environments"] == 48
    assert m["predicted_rmse_change_high"] < 0 < noise["predicted_rmse_change_high"]
    assert m["alone_predicted_rmse"] > 0
    assert isinstance(judgement.baseline, Prediction)
    assert judgement.baseline.rmse.value + m["predicted_rmse_change"] == pytest.approx(m["predicted_rmse"])


def test_statistics_that_a_table_cannot_carry_are_null_with_a_reason() -> None:
    frame = judge(_networks(1), ["m"], design([4, 4]), draws=50).frame
    row = frame.row(0, named=True)
    assert "sign error: no environment has an effective sample of 12" in row["reason"]
    assert "error_worst" not in row or row["error_worst"] is None
    assert row["tau"] is not None


def test_a_judgement_is_repeatable() -> None:
    first, again = (judge(_networks(2), ["m", "noise"], design([4, 4]), draws=50).frame for _ in range(2))
    assert first.equals(again)


@given(st.lists(st.floats(0, 1), min_size=1, max_size=12))
def test_corrections_by_their_definitions(p: list[float]) -> None:
    result = adjusted({str(i): v for i, v in enumerate(p)})
    ordered = sorted(p)
    n = len(p)
    for i, v in enumerate(p):
        a = result[str(i)]
        assert a.q == pytest.approx(min(min(n * w / (ordered.index(w) + p.count(w)), 1) for w in p if w >= v))
        assert a.holm == pytest.approx(max(min((n - ordered.index(w)) * w, 1) for w in p if w <= v))
        assert v <= a.q + 1e-12
        assert a.q <= a.holm + 1e-12


def test_unknown_probabilities_are_no_tests() -> None:
    result = adjusted({"a": 0.01, "b": math.nan, "c": 0.04})
    assert (result["a"].holm, result["c"].holm) == (0.02, 0.04)
    assert math.isnan(result["b"].q)
    assert adjusted({}) == {}
    with pytest.raises(DataError):
        adjusted({"a": 1.5})


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"drop": "test_loss"}, "no column 'test_loss'"),
        ({"drop": "k1"}, "no column 'k1'"),
        ({"drop": "m"}, "no column 'm'"),
        ({"words": "m"}, "'m' holds no numbers"),
        ({"twice": ""}, "more than once"),
    ],
)
def test_tables_that_cannot_be_read_are_refused_in_one_sentence(change: dict[str, str], words: str) -> None:
    networks = _networks()
    if "drop" in change:
        networks = networks.drop(change["drop"])
    if "words" in change:
        networks = networks.with_columns(pl.col(change["words"]).cast(pl.String))
    if "twice" in change:
        networks = pl.concat([networks, networks])
    with pytest.raises(DataError, match=words) as caught:
        judge(networks, ["m"], design([4, 4]))
    assert "\n" not in str(caught.value)
    assert caught.value.remedy


DESIGNS: list[dict[str, Any]] = [
    {"knobs": ()},
    {"knobs": ("a", "a")},
    {"knobs": ("a",), "seed": "a"},
    {"knobs": ("a",), "gap": "error"},
    {"knobs": ("a",), "tested": 0},
]


@pytest.mark.parametrize("options", DESIGNS)
def test_designs_that_make_no_sense_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(SettingsError):
        JudgingDesign(**options)


def test_other_tables_and_a_missing_polars_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(SettingsError, match="dict"):
        judge({}, ["m"], design([4, 4]))  # type: ignore[arg-type]
    networks, plain = _networks(), builtins.__import__

    def without(name: str, *rest: Any, **options: Any) -> Any:
        if name == "polars":
            raise ImportError(name)
        return plain(name, *rest, **options)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(MissingPackageError, match="polars"):
        judge(networks, ["m"], design([4, 4]))


def test_null_settings_are_settings() -> None:
    """A knob that a family does not have is null there; its networks are one group like any other."""
    networks = _networks().with_columns(k1=pl.when(pl.col("k1") == 2).then(None).otherwise(pl.col("k1")))
    row = judge(networks, ["m"], design([4, 4]), draws=50).frame.row(0, named=True)
    assert row["error_environments"] == 48
    assert isinstance(judge(networks.head(5), ["m"], design([4, 4])).baseline, Absent)
