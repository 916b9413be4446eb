"""The judging reproduces the published answers of 910 networks that were not trained here, to every printed digit."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import polars as pl
import pytest

from memspace.errors import DataError
from memspace.judging.granulated import Granulated, granulated
from memspace.judging.judgement import judge
from memspace.judging.kendall import kendall
from memspace.judging.prediction import Prediction, predict_out_of_sample
from memspace.judging.published import DESIGN, FITTED, read_networks
from memspace.judging.resampling import Correlation
from memspace.value import Value

SHARED = Path(__file__).resolve().parents[2].parent / "shared" / "data"
FOLDER = Path(os.environ.get("MEMSPACE_DATA", SHARED)) / "loss-landscape-910"
needs_networks = pytest.mark.skipif(not FOLDER.is_dir(), reason="the table of 910 networks is not here")

# Kendall's τ with the gap of loss and of accuracy: all networks, and those that fitted their training data.
TAUS = {
    "trace": ("-0.031", "-0.040", "+0.634", "+0.597"),
    "top_eig": ("-0.062", "-0.080", "+0.625", "+0.569"),
    "width": ("+0.055", "+0.073", "-0.629", "-0.583"),
    "batch": ("+0.373", "+0.384", "+0.492", "+0.557"),
    "train_loss": ("-0.290", "-0.292", "+0.305", "+0.277"),
    "dist": ("+0.085", "+0.097", "-0.238", "-0.240"),
    "cka": ("", "", "-0.847", "-0.782"),
}


@pytest.fixture(scope="module")
def networks() -> pl.DataFrame:
    return read_networks(FOLDER)


@pytest.fixture(scope="module")
def fitted(networks: pl.DataFrame) -> pl.DataFrame:
    return networks.filter(pl.col("train_accuracy") >= FITTED)


@needs_networks
def test_the_table_is_complete(networks: pl.DataFrame, fitted: pl.DataFrame) -> None:
    assert networks.height == networks["key"].n_unique() == 910
    assert fitted.height == 505
    assert networks["cka"].null_count() == 10
    assert networks.n_unique(["width", "batch"]) == 182


@needs_networks
@pytest.mark.parametrize("measure", TAUS)
def test_rank_correlations(networks: pl.DataFrame, fitted: pl.DataFrame, measure: str) -> None:
    judged = []
    for part in (networks, fitted):
        for gap in ("loss", "accuracy"):
            result = kendall(part, measure, replace(DESIGN, gap=gap), draws=100)
            assert isinstance(result, Correlation)
            interval = result.value.interval
            assert interval is not None
            assert interval[0] < result.value.value < interval[1]
            judged.append(f"{result.value.value:+.3f}")
    pairs = [(ours, theirs) for ours, theirs in zip(judged, TAUS[measure], strict=True) if theirs]
    assert [a for a, _ in pairs] == [b for _, b in pairs]


@needs_networks
@pytest.mark.parametrize(("measure", "batch", "width"), [("trace", "0.338", "0.616"), ("cka", "-0.705", "-0.772")])
def test_granulated(fitted: pl.DataFrame, measure: str, batch: str, width: str) -> None:
    result = granulated(fitted, measure, DESIGN)
    assert isinstance(result, Granulated)
    assert result.groups == {"width": 11, "batch": 11}
    by_knob = {name: f"{v.value:.3f}" for name, v in result.knobs.items() if isinstance(v, Value)}
    assert by_knob == {"width": width, "batch": batch}


def test_a_missing_or_damaged_file_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MEMSPACE_DATA", raising=False)
    with pytest.raises(DataError, match="MEMSPACE_DATA"):
        read_networks()
    monkeypatch.setenv("MEMSPACE_DATA", str(tmp_path))
    with pytest.raises(DataError, match=r"networks\.csv is missing"):
        read_networks()
    file = tmp_path / "networks.csv"
    for text in ("", "batch,width\n1,2\n", "batch,width\n1,2,3\n4\n"):
        file.write_text(text)
        with pytest.raises(DataError) as caught:
            read_networks(file)
        assert str(file) in str(caught.value)


@needs_networks
@pytest.mark.parametrize(
    ("measures", "knobs", "rmse", "tau"),
    [
        ([], True, "0.0418", "0.845"),
        (["trace"], True, "0.0348", "0.860"),
        (["cka"], True, "0.0381", "0.864"),
        (["cka"], False, "0.0533", "0.845"),
        (["trace"], False, "0.132", "0.621"),
    ],
)
def test_prediction_with_one_width_left_out(
    fitted: pl.DataFrame, measures: list[str], knobs: bool, rmse: str, tau: str
) -> None:
    result = predict_out_of_sample(fitted, measures, DESIGN, knobs=knobs, draws=100)
    assert isinstance(result, Prediction)
    assert result.model == "least squares"
    assert f"{result.rmse.value:.{len(rmse) - 2}f}" == rmse
    assert f"{result.tau.value:.3f}" == tau
    assert "11 groups" in result.rmse.how


@needs_networks
def test_all_of_it_in_one_call(fitted: pl.DataFrame) -> None:
    judgement = judge(fitted, ["trace", "cka"], DESIGN, directions={"cka": -1}, draws=100)
    rows = {r["measure"]: r for r in judgement.frame.rows(named=True)}
    assert f"{rows['trace']['tau']:.3f}" == "0.634"
    assert f"{rows['cka']['psi_along_batch']:.3f}" == "-0.705"
    assert f"{rows['cka']['predicted_rmse']:.4f}" == "0.0381"
    assert rows["cka"]["error_mean"] < rows["trace"]["error_mean"]
    assert rows["cka"]["error_environments"] == 877
    assert rows["trace"]["reason"] is None
    assert isinstance(judgement.baseline, Prediction)
    assert f"{judgement.baseline.rmse.value:.4f}" == "0.0418"
