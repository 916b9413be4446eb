"""Prediction of the gap on groups left out: exact laws are found, noise adds nothing, what helps is seen to help."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest
from scipy import stats

from memspace.errors import SettingsError
from memspace.judging.design import Design
from memspace.judging.features import knob_features, measure_features
from memspace.judging.prediction import Prediction, predict_out_of_sample
from memspace.value import Absent, Value
from tests.judging.made import table

WIDTHS, BATCHES = (8, 16, 32, 64, 128), (16, 64, 256, 1024)
DESIGN = Design(("width", "batch"), seed="seed", left_out="width")


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
    assert isinstance(result.rmse_change, Absent)


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
    predicted = np.empty(60)
    predicted[result.rows] = result.predicted
    assert predicted == pytest.approx(by_row, rel=1e-9)
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
    for change, sign in ((knows.rmse_change, 1), (knows.mae_change, 1), (knows.tau_change, -1)):
        assert isinstance(change, Value)
        assert change.interval is not None
        assert max(sign * e for e in change.interval) < 0
    assert isinstance(guesses.rmse_change, Value)
    assert guesses.rmse_change.value > -0.02 * gap.std()
    assert knows.model == model
    both = _predicted(networks, ["m", "noise"], model=model)
    assert both.rmse.value < 2 * knows.rmse.value


def test_many_columns_are_shrunk() -> None:
    """44 columns of noise on 48 networks: least squares goes astray, ridge stays near the spread of the gap."""
    rng = np.random.default_rng(2)
    knobs = {f"n{i}": rng.random(60) + 1 for i in range(7)}
    gap = rng.standard_normal(60)
    d = Design((*knobs, "width"), left_out="width")
    networks = table(knobs | {"width": _knobs()["width"]}, gap)
    chosen = predict_out_of_sample(networks, [], d)
    plain = predict_out_of_sample(networks, [], d, model="least squares")
    assert isinstance(chosen, Prediction)
    assert isinstance(plain, Prediction)
    assert chosen.model == "ridge"
    assert chosen.rmse.value < 1.3 * gap.std() < plain.rmse.value


def test_groups_are_resampled_where_there_are_enough_of_them() -> None:
    rng = np.random.default_rng(3)
    knobs = {"width": np.repeat(np.arange(1, 11), 6), "batch": np.tile([1, 2, 4], 20)}
    networks = table(knobs, rng.random(60), m=rng.random(60))
    many = predict_out_of_sample(networks, "m", Design(("width", "batch"), left_out="width"))
    few = predict_out_of_sample(networks, "m", Design(("width", "batch"), left_out="batch"))
    assert isinstance(many, Prediction)
    assert isinstance(few, Prediction)
    assert "10 groups left out in turn, resampled" in many.rmse.how
    assert "configurations resampled" in few.rmse.how


def test_a_family_left_out_has_no_column_of_its_own() -> None:
    rng = np.random.default_rng(4)
    family = np.repeat(["mlp", "cnn", "rnn"], 20)
    width = np.tile(2.0 ** np.arange(20), 3)
    gap = np.log(width) + 0.01 * rng.standard_normal(60)
    result = predict_out_of_sample(table({"family": family, "width": width}, gap), [], Design(("family", "width")))
    assert isinstance(result, Prediction)
    assert result.rmse.value < 0.1 * gap.std()


def test_columns_of_hyper_parameters() -> None:
    knobs = pl.DataFrame(
        {
            "width": [1.0, 2.0, 4.0, None],  # log, square, and whether it is there
            "decay": [0.0, 0.1, 0.0, 0.1],  # two values: no square
            "law": ["a", "b", "c", "a"],  # two columns
            "same": [1, 1, 1, 1],
        }
    )
    assert knob_features(knobs, knobs.columns).shape == (4, 1 + 1 + 1 + 1 + 1 + 2)
    measures = pl.DataFrame({"positive": [1.0, 10.0, 100.0], "signed": [-1.0, 0.0, 1.0], "same": [2.0] * 3})
    x = measure_features(measures, measures.columns)
    assert x == pytest.approx(np.sqrt(1.5) * np.array([[-1, -1], [0, 0], [1, 1]]), abs=1e-12)


def test_infinite_values_are_left_out_and_one_group_is_no_test() -> None:
    rng = np.random.default_rng(5)
    m = rng.random(60)
    m[3] = np.inf
    networks = table(_knobs(), rng.random(60), m=m)
    assert _predicted(networks, "m").rmse.n == 59
    alone = predict_out_of_sample(networks.filter(pl.col("width") == 8), "m", Design(("width", "batch")))
    assert isinstance(alone, Absent)
    with pytest.raises(SettingsError, match="nothing to predict"):
        predict_out_of_sample(networks, [], DESIGN, knobs=False)
