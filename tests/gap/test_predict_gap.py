"""``memspace.predict_gap`` and ``memspace predict-gap``: a network told by a calibration, measured beside."""

from __future__ import annotations

import json
import subprocess
from dataclasses import replace
from pathlib import Path

import polars as pl
import pytest
import torch
from torch import nn

import memspace
from memspace.errors import DataError, TaskError
from memspace.gap.domain import NetworkFacts
from memspace.gap.file import save_gap_model
from memspace.gap.fit import fit_gap
from memspace.gap.model import GapModel
from memspace.gap.predictors import EXAMPLES, PARAMETERS, PREDICTORS
from memspace.zoo.gap import calibrate_gap, gap_table, settings_of
from memspace.zoo.measuring import measure_network
from memspace.zoo.measuring_settings import ZooSettings
from memspace.zoo.results import ZooResults
from memspace.zoo.stages.measures import version_of
from memspace.zoo.store import ZooStore
from tests import warm
from tests.gap.around import USED, zoo_around
from tests.zoo.measured_networks import perceptron_task

FACTS = NetworkFacts("categorical", 10)
SETTINGS = ZooSettings(examples=40, rows=400)


@pytest.fixture(scope="module")
def task() -> memspace.Task:
    whole = perceptron_task(n=120, width=12, steps=60)
    x, y = whole.train.batch(range(120)).x, whole.train.labels()
    return memspace.Task(whole.model, (x[:80], y[:80]), test=(x[80:], y[80:]), name="digits of mine")


@pytest.fixture(scope="module")
def numbers(task: memspace.Task) -> dict[str, float]:
    measured = measure_network(task, settings=SETTINGS, only=PREDICTORS)
    sizes = {EXAMPLES: 80.0, PARAMETERS: float(sum(p.numel() for p in task.model.parameters()))}
    return {m.name: m.value for m in measured.measurements} | sizes


@pytest.fixture(scope="module")
def model(numbers: dict[str, float]) -> GapModel:
    return fit_gap(zoo_around(numbers), settings=settings_of(SETTINGS))


def test_a_network_is_measured_as_the_calibration_and_told(
    task: memspace.Task, numbers: dict[str, float], model: GapModel, tmp_path: Path
) -> None:
    before = {k: v.clone() for k, v in task.model.state_dict().items()}
    told = memspace.predict_gap(task, calibration=model, page=tmp_path / "gap.html")
    expected = told.prediction
    assert expected.reliable, expected.note
    assert expected.test_loss == pytest.approx(3 * numbers["generalisation.train_loss"], rel=0.1)
    low, high = expected.test_loss_interval
    assert low < expected.test_loss < high
    by_name = {m.name: m for m in told.measurements}
    assert by_name["generalisation.predicted_test_loss"].value == expected.test_loss
    assert by_name["generalisation.predicted_test_loss.low"].value == low
    assert by_name["generalisation.predicted_gap.high"].value == expected.gap_interval[1]
    assert "90% interval" in by_name["generalisation.predicted_gap"].estimator
    x, y = task.test.batch(range(40)).x, task.test.labels()
    measured = float(nn.functional.cross_entropy(task.model(x).detach(), y)) - numbers["generalisation.train_loss"]
    assert by_name["generalisation.measured_gap"].value == pytest.approx(measured, rel=1e-5)
    assert all(torch.equal(v, before[k]) for k, v in task.model.state_dict().items())
    assert "Gap to expect" in (tmp_path / "gap.html").read_text()
    assert "Measured on 40 test examples" in str(told)


def test_test_data_play_no_part(task: memspace.Task, model: GapModel) -> None:
    alone = memspace.predict_gap(replace(task, test=None), calibration=model)
    assert alone.prediction == memspace.predict_gap(task, calibration=model).prediction
    assert [u.name for u in alone.unmeasured] == ["generalisation.measured_gap"]
    assert alone.to_dict()["measured"] == []


def test_a_network_outside_is_told_so(task: memspace.Task, numbers: dict[str, float]) -> None:
    other = {**numbers, "margins.mean": 30 * numbers["margins.mean"]}
    told = memspace.predict_gap(task, calibration=fit_gap(zoo_around(other), settings=settings_of(SETTINGS)))
    assert not told.prediction.reliable
    assert "margins.mean" in told.prediction.note
    assert not any(m.reliable for m in told.measurements if "predicted" in m.name)
    (chapter,) = told.results.chapters
    assert "Do not rely on it" in chapter.answer
    assert [f.level for f in chapter.findings] == ["warn"]


def test_without_a_calibration_or_with_another_law_it_is_one_sentence(
    task: memspace.Task, model: GapModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("memspace.gap.file.shipped_gap_model", lambda: None)
    with pytest.raises(DataError, match=r"no calibration is shipped .*memspace zoo calibrate STORE --to FILE"):
        memspace.predict_gap(task)
    with pytest.raises(DataError, match="another version of the measures"):
        memspace.predict_gap(task, calibration=replace(model, settings={**model.settings, "version": -1}))
    x = torch.randn(12, 3)
    with pytest.raises(TaskError, match="the output law is gaussian"):
        memspace.predict_gap(nn.Linear(3, 1), (x, x[:, :1]), likelihood=memspace.Gaussian(1.0), calibration=model)


def test_an_audit_has_it_as_a_chapter_where_there_is_a_calibration(
    task: memspace.Task, model: GapModel, tmp_path: Path
) -> None:
    results = memspace.audit(task, calibration=model)
    chapter = results.chapters[-1]
    assert chapter.id == "gap"
    told = memspace.predict_gap(task, calibration=model)
    assert chapter.value("generalisation.predicted_gap") == told.prediction.gap
    assert chapter.answer == told.results.chapters[0].answer
    shipped = memspace.audit(task, calibration="shipped").chapters[-1]
    assert shipped.id == "gap"
    x = torch.randn(12, 3)
    numbers = (nn.Linear(3, 1), (x, x[:, :1]))
    with pytest.raises(DataError, match="the calibration cannot be read"):
        memspace.audit(*numbers, calibration=tmp_path / "nowhere.json")
    for calibration, why in ((model, "the output law is gaussian"), (None, "no calibration of the gap was given")):
        results = memspace.audit(*numbers, likelihood=memspace.Gaussian(1.0), calibration=calibration)
        assert "gap" not in {c.id for c in results.chapters}
        (absent,) = (u for c in results.chapters for u in c.unmeasured if u.name == "generalisation.predicted_gap")
        assert absent.reason.startswith(why)


HERE = str(Path(__file__).parents[2])
MINE = """
import memspace
from tests.zoo.measured_networks import perceptron_task

def task():
    whole = perceptron_task(n=120, width=12, steps=60)
    x, y = whole.train.batch(range(120)).x, whole.train.labels()
    return memspace.Task(whole.model, (x[:80], y[:80]), test=(x[80:], y[80:]), name="mine")
"""


def run(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    return warm.memspace(folder, *words, path=[HERE], environment={"COLUMNS": "140"})


def test_the_command_shows_expected_and_measured_apart(model: GapModel, tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(MINE)
    save_gap_model(model, tmp_path / "gap.json")
    done = run(tmp_path, "predict-gap", "mine:task", "--calibration", "gap.json", "--json", "--out", "told.json")
    assert done.returncode == 0, done.stderr
    content = json.loads(done.stdout)
    assert content == json.loads((tmp_path / "told.json").read_text())
    assert content["expected"]["reliable"]
    assert content["expected"]["level"] == 0.9
    assert [m["name"] for m in content["measured"]] == ["generalisation.measured_gap"]
    shown = run(tmp_path, "predict-gap", "mine:task", "--calibration", "gap.json")
    assert "expected from 72 other networks" in shown.stdout
    assert "90% interval" in shown.stdout
    assert "Measured on 40 test examples" in shown.stdout
    bad = run(tmp_path, "predict-gap", "mine:task", "--calibration", "mine.py", "--quiet")
    assert bad.returncode == 4
    assert "this is no calibration of the gap" in bad.stderr
    assert "Traceback" not in bad.stderr


def store_of(folder: Path, numbers: dict[str, float]) -> ZooStore:
    """A packed store of made-up rows on the digits."""
    version = version_of(ZooSettings())
    table = zoo_around(numbers).with_row_index("key").with_columns(pl.col("key").cast(str))
    n = len(table)
    store = ZooStore(folder)
    fixed = {"data": "digits", "start": "fresh", "permuted": False, "size": 80, "parameters": 1000, "reached": True}
    curve = {"curve_steps": [0.0, 10.0], "curve_losses": [2.3, 0.2]}
    trained = [{"key": str(k), "block": table["block"][k], **fixed, **curve} for k in range(n)]
    trained[0] |= {"start": "random labels"}
    trained[1] |= {"reached": False}
    store.add_rows("trained", "all", trained)
    outcomes = table.select("key", "train_loss", "test_loss").with_columns(train_accuracy=0.9, test_accuracy=0.8)
    rows = [{**row, "moment": moment, "share_of_steps": moment} for row in outcomes.to_dicts() for moment in (0.1, 1.0)]
    store.add_rows("outcomes", "all", rows)
    measured = [
        {"key": str(k), "version": version, "moment": 1.0, "name": p, "value": float(table[p][k])}
        for k in range(n)
        for p in ("generalisation.train_loss", *USED)
    ]
    store.add_rows("measured", "all", measured)
    return store


def test_early_in_training_the_loss_of_then_is_taken_and_the_end_is_told(
    tmp_path: Path, numbers: dict[str, float]
) -> None:
    store = store_of(tmp_path / "store", numbers)
    rows = store.rows("measured")
    early = rows.with_columns(
        moment=pl.lit(0.1),
        value=pl.when(pl.col("name") == "generalisation.train_loss").then(pl.col("value") * 1.2).otherwise("value"),
    )
    store.add_rows("measured", "all", pl.concat([rows, early]).to_dicts())
    networks = ZooResults([store]).table()
    table, whole = gap_table(networks, 0.1), gap_table(networks)
    assert table["train_loss"].to_numpy() == pytest.approx(1.2 * whole["train_loss"].to_numpy())
    assert table["test_loss"].equals(whole["test_loss"])
    made = calibrate_gap(store, moment=0.1)
    result = made.predict({**numbers, "generalisation.train_loss": float(table["train_loss"][0])}, FACTS)
    assert "told at 10% of the training, for its end" in result.how
    assert result.test_loss == pytest.approx(3 * numbers["generalisation.train_loss"], rel=0.1)
    assert result.gap == pytest.approx(result.test_loss - table["train_loss"][0])


def test_a_store_is_calibrated_without_its_interventions(tmp_path: Path, numbers: dict[str, float]) -> None:
    store = store_of(tmp_path / "store", numbers)
    table = gap_table(ZooResults([store]).table())
    assert len(table) == 70  # neither from random labels nor short of its target
    assert set(table["outputs"]) == {10}
    made = calibrate_gap(store)
    assert made.networks == 70
    assert made.store == store.digest()
    assert made.settings["damping"] == ZooSettings().damping
    assert set(USED) <= set(made.predictors)
    with pytest.raises(DataError, match="another version, or at other settings"):
        calibrate_gap(store, settings=SETTINGS)
    done = run(tmp_path, "zoo", "calibrate", "store", "--to", "gap.json", "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["networks"] == 70
    nothing = run(tmp_path, "zoo", "calibrate", "empty", "--to", "gap.json")
    assert nothing.returncode == 4
    assert "the store has no table 'networks'" in nothing.stderr
