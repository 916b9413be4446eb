"""Prediction of the gap on groups left out: exact laws are found, noise adds nothing, what helps is seen to help."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest
from scipy import stats
from sklearn.linear_model import LinearRegression, Ridge

from memspace.errors import SettingsError
from memspace.judging.design import JudgingDesign
from memspace.judging.features import knob_features, measure_features
from memspace.judging.kendall import kendall
from memspace.judging.prediction import Change, Prediction, compare_predictions, predict_out_of_sample
from memspace.judging.regression import repeated
from memspace.judging.resampling import Correlation
from memspace.value import Absent
from tests.judging.made import correlated, table

WIDTHS, BATCHES = (8, 16, 32, 64, 128), (16, 64, 256, 1024)
DESIGN = JudgingDesign(("width", "batch"), seed="seed", left_out="width")


def _knobs(seeds: int = 3) -> dict[str, np.ndarray[tuple[int], np.dtype[np.int64]]]:
    grid = np.array([(w, b, s) for w in WIDTHS for b in BATCHES for s in range(seeds)])
    return {"width": grid[:, 0], "batch": grid[:, 1], "seed": grid[:, 2]}


def _logs() -> tuple[np.ndarray[tuple[int], np.dtype[np.float64]], ...]:
    knobs = _knobs()
    return np.log(knobs["width"]), np.log(knobs["batch"])


def _predicted(networks: pl.DataFrame, measures: str | list[str], **options: object) -> Prediction:
    result = predict_out_of_sample(networks, measures, DESIGN, **options)  # type: ignore[arg-type]
    assert isinstance(result, Prediction)
    return result


def test_a_quadratic_law_of_logarithms_is_found_exactly() -> None:
    w, b = _logs()
    gap = 1 - 0.3 * w + 0.02 * w**2 + 0.1 * b - 0.01 * b**2 + 0.03 * w * b
    result = _predicted(table(_knobs(), gap), [], model="least squares")
    assert result.rmse.value < 1e-10
    assert result.tau.value == pytest.approx(1, abs=1e-3)
    assert result.model == "least squares"
    assert isinstance(result.change, Absent)


def test_it_is_what_a_plain_regression_gives() -> None:
    rng = np.random.default_rng(0)
    w, b = _logs()
    gap, m = w + rng.standard_normal(60), rng.random(60) + 0.1
    result = _predicted(table(_knobs(), gap, m=m), "m", model="least squares")
    x = np.stack([np.ones(60), w, b, w**2, b**2, w * b, np.log(m)], 1)
    by_row = np.empty(60)
    for width in WIDTHS:
        out = _knobs()["width"] == width
        by_row[out] = x[out] @ np.linalg.lstsq(x[~out], gap[~out], rcond=None)[0]
    assert result.column.to_numpy() == pytest.approx(by_row, rel=1e-9)
    assert result.rmse.value == pytest.approx(np.sqrt(np.mean((by_row - gap) ** 2)))
    assert result.mae.value == pytest.approx(np.mean(np.abs(by_row - gap)))
    assert result.tau.value == pytest.approx(stats.kendalltau(by_row, gap).statistic)


@pytest.mark.parametrize("model", ["least squares", "ridge"])
def test_a_measure_that_knows_more_helps_and_noise_does_not(model: str) -> None:
    rng = np.random.default_rng(1)
    w, _ = _logs()
    hidden = rng.standard_normal(60)
    gap = 0.1 * w + hidden + 0.1 * rng.standard_normal(60)
    networks = table(_knobs(), gap, m=np.exp(hidden), noise=rng.standard_normal(60))
    knows, guesses = _predicted(networks, "m", model=model), _predicted(networks, "noise", model=model)
    assert isinstance(knows.change, Change)
    assert isinstance(guesses.change, Change)
    for change, sign in ((knows.change.rmse, 1), (knows.change.mae, 1), (knows.change.tau, -1)):
        assert change.interval is not None
        assert max(sign * e for e in change.interval) < 0
    assert guesses.change.rmse.value > -0.02 * gap.std()
    assert knows.model == model
    both = _predicted(networks, ["m", "noise"], model=model)
    assert both.rmse.value < 2 * knows.rmse.value


def test_many_columns_are_shrunk() -> None:
    """44 columns of noise on 48 networks: least squares goes astray, ridge stays near the spread of the gap."""
    rng = np.random.default_rng(2)
    knobs = {f"n{i}": rng.random(60) + 1 for i in range(7)}
    gap = rng.standard_normal(60)
    d = JudgingDesign((*knobs, "width"), left_out="width")
    networks = table(knobs | {"width": _knobs()["width"]}, gap)
    chosen = predict_out_of_sample(networks, [], d)
    plain = predict_out_of_sample(networks, [], d, model="least squares")
    assert isinstance(chosen, Prediction)
    assert isinstance(plain, Prediction)
    assert chosen.model == "ridge"
    assert chosen.rmse.value < 1.3 * gap.std() < plain.rmse.value


def test_every_resample_is_fitted_again() -> None:
    """A resample by counts is the table with rows repeated, for least squares and for ridge regression."""
    rng = np.random.default_rng(3)
    x, y, group = rng.standard_normal((30, 4)), rng.standard_normal(30), np.arange(30) % 3
    counts = rng.integers(0, 3, (5, 30)).astype(float)
    for penalty in (None, np.array([0.01, 0.1, 1.0])):
        again = repeated(x, y, group, penalty, counts)
        for row, times in zip(again, counts.astype(int), strict=True):
            rows = np.repeat(np.arange(30), times)
            for g in range(3):
                fit = rows[group[rows] != g]
                model = LinearRegression() if penalty is None else Ridge(alpha=penalty[g] * len(fit))
                expected = model.fit(x[fit], y[fit]).predict(x[group == g])
                assert row[group == g] == pytest.approx(expected, rel=1e-6, abs=1e-6)


def test_a_measure_of_noise_is_seldom_said_to_help() -> None:
    """Over 40 tables of five groups the interval lies below zero in 2.5% and three standard errors of 2.5% at most."""
    rng = np.random.default_rng(8)
    _, b = _logs()
    helped = []
    for _ in range(40):
        level = np.repeat(0.5 * rng.standard_normal(5), 12)
        gap = 0.5 * b + level + correlated(rng, 20, 0.0, 3, 0.7)[:, 0]
        noise = correlated(rng, 20, 0.0, 3, 0.7)[:, 0]
        change = _predicted(table(_knobs(), gap, m=noise), "m", model="least squares", draws=100).change
        assert isinstance(change, Change)
        assert change.rmse.interval is not None
        helped.append(change.rmse.interval[1] < 0)
    assert np.mean(helped) < 0.025 + 3 * 0.025


def test_two_sets_of_measures_are_compared_on_the_same_networks() -> None:
    rng = np.random.default_rng(9)
    hidden = rng.standard_normal(60)
    gap = hidden + 0.3 * rng.standard_normal(60)
    holes = np.where(np.arange(60) == 7, np.nan, rng.standard_normal(60))
    networks = table(_knobs(), gap, m=hidden, noise=holes)
    change = compare_predictions(networks, "m", ["noise"], DESIGN)
    assert isinstance(change, Change)
    assert change.rmse.n == 59
    assert change.rmse.interval is not None
    assert change.rmse.interval[1] < 0
    both = networks.filter(pl.col("noise").is_not_nan())
    alone, base = (_predicted(both, m) for m in ("m", "noise"))
    assert change.rmse.value == pytest.approx(alone.rmse.value - base.rmse.value)
    with pytest.raises(SettingsError):
        compare_predictions(networks, "m", [], DESIGN, knobs=False)


def test_a_predicted_gap_is_a_measure() -> None:
    rng = np.random.default_rng(10)
    hidden = rng.standard_normal(60)
    networks = table(_knobs(), hidden + 0.3 * rng.standard_normal(60), m=np.where(np.arange(60) == 7, np.nan, hidden))
    result = _predicted(networks, "m")
    assert result.column.null_count() == 1
    judged = kendall(networks.with_columns(result.column), "predicted", DESIGN)
    assert isinstance(judged, Correlation)
    assert judged.value.value == pytest.approx(result.tau.value)


@pytest.mark.parametrize("model", ["least squares", "ridge"])
def test_a_family_left_out_has_the_mean_of_the_others(model: str) -> None:
    """Gap = log width + level of the family: predicted with the mean level of the two others, however many they are."""
    family = np.repeat(["mlp", "cnn", "rnn"], [20, 40, 30])
    level = np.repeat([0.0, 3.0, 9.0], [20, 40, 30])
    width = 2.0 ** (np.arange(90) % 10)
    networks = table({"family": family, "width": width}, np.log(width) + level)
    result = predict_out_of_sample(networks, [], JudgingDesign(("family", "width")), model=model)  # type: ignore[arg-type]
    assert isinstance(result, Prediction)
    off = result.column.to_numpy() - np.log(width) - level
    for name, expected in (("mlp", 6.0), ("cnn", 4.5 - 3.0), ("rnn", 1.5 - 9.0)):
        assert off[family == name] == pytest.approx(expected, abs=1e-8 if model == "least squares" else 0.5)


def test_columns_of_hyper_parameters() -> None:
    knobs = pl.DataFrame(
        {
            "width": [1.0, 2.0, 4.0, None],  # log, square, and whether it is there
            "decay": [0.0, 0.1, 0.0, 0.1],  # two values: no square
            "law": ["a", "b", "c", "a"],  # three columns
            "same": [1, 1, 1, 1],
        }
    )
    assert knob_features(knobs, knobs.columns).shape == (4, 1 + 1 + 1 + 1 + 1 + 3)
    measures = pl.DataFrame({"positive": [1.0, 10.0, 100.0], "signed": [-1.0, 0.0, 1.0], "same": [2.0] * 3})
    x = measure_features(measures, measures.columns)
    assert x == pytest.approx(np.sqrt(1.5) * np.array([[-1, -1], [0, 0], [1, 1]]), abs=1e-12)


def test_infinite_values_are_left_out_and_one_group_is_no_test() -> None:
    rng = np.random.default_rng(5)
    m = rng.random(60)
    m[3] = np.inf
    networks = table(_knobs(), rng.random(60), m=m)
    assert _predicted(networks, "m").rmse.n == 59
    alone = predict_out_of_sample(networks.filter(pl.col("width") == 8), "m", JudgingDesign(("width", "batch")))
    assert isinstance(alone, Absent)
    with pytest.raises(SettingsError, match="nothing to predict"):
        predict_out_of_sample(networks, [], DESIGN, knobs=False)
