import html
import json
import math

import pandas
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from memspace.auditing.results import Chapter, Figure, Results, Series
from memspace.auditing.store import Store, load_results
from memspace.bibliography import reference
from memspace.format import format_interval, format_value
from memspace.measurement import Measurement, from_samples
from memspace.report.figures import PALETTE, PALETTE_DARK, to_plotly
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
    assert list(frame["loo_loss"]) == [0.5, 1.5]
    about = pq.read_schema(tmp_path / "run" / "examples.parquet").metadata
    assert about[b"memspace_schema"] == b"1"
    assert json.loads(about[b"units"]) == {"loo_loss": "nats"}


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


def test_sources_are_shown_as_citations_with_the_full_reference():
    page = render(sample())
    assert "Liang et al. 2019, eq. 8</td>" in page
    assert "liang2019" not in page
    full = html.escape(reference("liang2019"))
    assert f'title="{full}"' in page
    assert f"<li>{full}</li>" in page
    assert "our handbook &lt;script&gt;" in page


def test_numbers_that_failed_are_rendered_and_survive_storage(tmp_path):
    nan, inf = math.nan, math.inf
    series = tuple(Series(mode, [1.0, 2.0], [nan, 1.0], mode, [nan, 0.5], [inf, 2.0]) for mode in ("line", "points"))
    figure = Figure("f", "t", "c", "x", "y", (*series, Series("bar", ["a", "b"], [nan, 1.0], "bar")), "log", "log")
    open_ended = Measurement("m", 1.0, "1", "e", 3, (0.5, inf))
    chapter = Chapter("c", "C", "q", "a", (open_ended,), figures=(figure,))
    results = Results("n", "2026-01-01", "0", {}, {}, "p", (chapter,))
    assert "0.500 to ∞" in render(results)
    Store(tmp_path, {}).save_results(results)
    again = load_results(tmp_path)
    assert again.measurement("m").interval is None
    assert "not a number" not in render(again).split("<script>")[0]


def test_marks_stand_where_they_belong_and_apart():
    series = (Series("s", [1.0, 10.0, 100.0], [1.0, 2.0, 3.0]),)
    marks = ((90.0, "right"), (2.0, "left"), (math.nan, "nowhere"), (-1.0, "not on a log axis"))
    layout = to_plotly(Figure("f", "t", "c", "x", "y", series, "log", "linear", marks))["layout"]
    left, right = layout["annotations"]
    assert [left["text"], right["text"]] == ["left", "right"]
    assert [left["xanchor"], right["xanchor"]] == ["left", "right"]
    assert left["y"] > right["y"]
    assert len(layout["shapes"]) == 2
    assert layout["xaxis"]["range"] == pytest.approx([-0.1, 2.1])  # the words widen nothing


def _luminance(colour):
    parts = [int(colour[k : k + 2], 16) / 255 for k in (1, 3, 5)]
    r, g, b = (v / 12.92 if v <= 0.04045 else ((v + 0.055) / 1.055) ** 2.4 for v in parts)
    return 0.2126 * r + 0.7152 * g + 0.0722 * b


@pytest.mark.parametrize(("palette", "card"), [(PALETTE, "#ffffff"), (PALETTE_DARK, "#1d2026")])
def test_every_hue_stands_out_from_its_card(palette, card):
    assert len(palette) == len(PALETTE)
    for hue in palette:
        low, high = sorted((_luminance(hue), _luminance(card)))
        assert (high + 0.05) / (low + 0.05) >= 3, hue


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
