import json
import math

import pandas
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from memspace.audit.results import Results
from memspace.audit.store import Store, load_results
from memspace.measurement import Measurement, from_samples
from memspace.report.figures import to_plotly
from memspace.report.format import format_interval, format_value
from memspace.report.html import png, render
from tests.report.sample import HOSTILE, sample


def test_results_survive_the_round_trip_through_a_run_folder(tmp_path):
    results = sample()
    store = Store(tmp_path / "run", {"k": 1})
    store.save_results(results)
    again = load_results(tmp_path / "run")
    assert again.to_dict() == results.to_dict()
    assert again.tables["examples"] == results.tables["examples"]
    assert render(again) == render(Results.from_dict(json.loads(json.dumps(results.to_dict())), results.tables))


def test_tables_open_in_pandas_and_carry_the_schema(tmp_path):
    Store(tmp_path / "run", {}).save_results(sample())
    frame = pandas.read_parquet(tmp_path / "run" / "examples.parquet")
    assert list(frame["loss"]) == [0.5, 1.5]
    assert pq.read_schema(tmp_path / "run" / "examples.parquet").metadata[b"memspace_schema"] == b"1"


def test_a_number_that_failed_is_absent_and_unreliable_not_zero():
    d = sample().to_dict()["chapters"][0]["measurements"][1]
    assert d["value"] is None
    assert d["reliable"] is False
    assert "nan" in d["note"]


def test_the_page_needs_nothing_from_outside_and_runs_no_foreign_script():
    page = render(sample())
    assert HOSTILE not in page
    own = page.split("<script>")[0]  # before the plotting library
    assert "http://" not in own
    assert "https://" not in own
    assert 'src="data:' in own
    assert ' src="http' not in page


def test_figures_say_what_is_drawn():
    line, bars, points = (to_plotly(f) for f in sample().chapters[0].figures)
    assert [t["y"] for t in line["data"]] == [[0.5, 1.5, 2.5], [1.5, 2.5, 3.5], [1.0, 2.0, 3.0]]
    assert line["layout"]["xaxis"]["type"] == "log"
    assert line["layout"]["shapes"][0]["x0"] == 10.0
    assert line["layout"]["annotations"][0]["x"] == 1.0  # an annotation on a log axis stands at log10
    assert bars["data"][0]["type"] == "bar"
    assert bars["layout"]["xaxis"]["type"] == "category"
    assert points["data"][0]["error_y"]["array"] == pytest.approx([0.1, 0.1])


@pytest.mark.parametrize(
    ("value", "interval", "shown"),
    [
        (1.23456, (1.13, 1.33), "1.23"),
        (1.23456, (1.2344, 1.2347), "1.23456"),
        (123456.0, (113456.0, 133456.0), "123,456"),
        (0.012345, None, "0.0123"),
        (0.0, None, "0"),
        (5e-9, None, "5.00e-09"),
    ],
)
def test_digits_follow_the_error(value, interval, shown):
    assert format_value(Measurement("m", value, "1", "e", 1, interval)) == shown


@given(st.floats(allow_nan=True, allow_infinity=True), st.floats(0, 1e6))
def test_every_number_can_be_shown(value, half):
    interval = (value - half, value + half) if math.isfinite(value) else None
    m = Measurement("m", value, "1", "e", 1, interval)
    assert format_value(m)
    assert format_interval(m)


@given(st.lists(st.floats(-1e3, 1e3), min_size=2, max_size=30))
def test_an_interval_from_samples_holds_their_mean(values):
    m = from_samples("m", values, "nats", "mean")
    assert m.interval is not None
    assert m.interval[0] <= m.value <= m.interval[1]
    assert m.value == pytest.approx(sum(values) / len(values), abs=1e-9)


def test_one_sample_has_no_interval_and_is_not_reliable():
    m = from_samples("m", [1.0], "nats", "mean")
    assert m.interval is None
    assert not m.reliable


def test_pictures_are_png():
    assert str(png([[0.0, 1.0], [0.5, 0.2]])).startswith("data:image/png;base64,iVBORw0KGgo")
