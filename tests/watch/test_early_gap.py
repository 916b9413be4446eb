"""The gap at the end of a training, told on the way: as ``predict_gap`` tells it, at its moment, changing nothing."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace

import pytest
import torch
from torch import nn

import memspace
from memspace.auditing.chapters.recording import recording_results
from memspace.errors import DataError, MemspaceError, RunFolderError, SettingsError, TaskError
from memspace.gap.file import save_gap_model
from memspace.gap.fit import fit_gap
from memspace.gap.model import GapModel, GapPrediction
from memspace.gap.predictors import EXAMPLES, PARAMETERS, PREDICTORS
from memspace.recorder.early import EarlyGap
from memspace.recorder.numbers import Numbers
from memspace.recorder.recorder import Recorder
from memspace.task.likelihood import Likelihood
from memspace.task.recording import load_recording
from memspace.task.task import Task
from memspace.zoo.gap import settings_of
from memspace.zoo.measuring import measure_network
from memspace.zoo.measuring_settings import ZooSettings
from tests.gap.around import zoo_around
from tests.watch.training import data, network, train

SETTINGS = ZooSettings(examples=20, rows=100)
TOLD = GapPrediction(0.5, 0.7, (0.3, 0.8), (0.5, 1.0), 0.9, 0.8, "network", {"margins.mean": 0.1}, "gap", 72, 12, 0.1)


@dataclass
class Said:
    """A forecast that says what it was asked, and tells the same of every network."""

    moments: tuple[float, ...] = (0.1, 0.5, 1.0)
    planned: int | None = 40
    error: MemspaceError | None = None

    def __post_init__(self) -> None:
        self.asked: list[tuple[float, Task, dict[str, torch.Tensor]]] = []

    def check(self, law: Likelihood) -> None:
        pass

    def told(self, task: Task, moment: float) -> GapPrediction:
        torch.rand(3)
        assert torch.is_grad_enabled()
        assert not task.model.training
        self.asked.append((moment, task, {k: v.clone() for k, v in task.model.state_dict().items()}))
        if self.error is not None:
            raise self.error
        return replace(TOLD, moment=moment)


def watched(forecast: object, out=None, steps: int = 40, **options) -> tuple[nn.Module, Recorder]:
    x, y = data(0)
    model = network(0)
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    torch.manual_seed(9)
    settings = memspace.WatchSettings(every=10, slow=False, probe=30)
    with memspace.watch(model, (x, y), optimizer, out=out, expect=forecast, settings=settings, **options) as run:
        train(model, x, y, optimizer, steps)
    return model, run


def test_it_is_told_once_a_moment_of_the_network_as_it_is_then(tmp_path) -> None:
    forecast, seen = Said(), []
    model, run = watched(forecast, tmp_path, to=seen.append)
    assert [(e.moment, e.step) for e in run.expected] == [(0.1, 4), (0.5, 20), (1.0, 40)]
    assert [m for m, _, _ in forecast.asked] == [0.1, 0.5, 1.0]
    plain, _ = watched(None)
    assert all(torch.equal(v, plain.state_dict()[k]) for k, v in model.state_dict().items())
    task, state = forecast.asked[-1][1:]
    assert len(task.train) == 120  # all of the data, not the probe
    assert task.run.step == (0, 40)
    assert torch.equal(task.run.states[0]["0.weight"], network(0)[0].weight)
    assert torch.equal(state["0.weight"], model[0].weight)
    assert not torch.equal(forecast.asked[0][2]["0.weight"], model[0].weight)
    assert seen[-1].known()["expected_gap"] == 0.5
    assert seen[-1].known()["expected_gap_high"] == 0.8
    assert seen[-1].expected.moment == 1.0
    assert run.costs["expecting"] > 0
    facts = recording_results(load_recording(tmp_path), {}).facts
    assert facts["to expect, at 10% of the training"].startswith(
        "step 4: a gap of 0.5 nats (0.3 to 0.8), test loss 0.7"
    )


def test_without_a_plan_only_the_end_is_known() -> None:
    _, run = watched(Said(planned=None))
    early, half, end = sorted(run.expected, key=lambda e: e.moment)
    assert early.prediction is half.prediction is None
    assert "not known how many steps the training takes" in early.text
    assert end.prediction is not None


def test_a_training_of_another_length_than_planned_is_said_to_be_one() -> None:
    _, run = watched(Said((0.5,), 20))  # told at a quarter of what it took
    (early,) = run.expected
    assert not early.prediction.reliable
    assert "told at 25% of the training and is calibrated for 50%" in early.text
    _, run = watched(Said((0.5,), 200))
    (early,) = run.expected
    assert early.prediction is None
    assert "no step at 50% of the 200 planned was recorded; 40 were taken" in early.text
    _, run = watched(Said((0.5,), 42))
    assert run.expected[0].prediction.reliable


def test_what_cannot_be_told_does_not_end_the_training(tmp_path) -> None:
    forecast = Said(error=DataError("the network has no training loss above zero", where="expected gap", remedy="x"))
    _, run = watched(forecast, tmp_path)
    assert run.fault is None
    assert run.steps == 40
    assert {e.reason for e in run.expected} == {"the network has no training loss above zero (expected gap)"}
    assert run.numbers.expected is None
    assert "expected_gap" not in run.numbers.known()


def test_what_is_outside_is_no_live_number_and_says_why() -> None:
    outside = replace(TOLD, reliable=False, note="outside of what was calibrated: 3 outputs (calibrated: 10 to 10)")
    numbers = Numbers(1, None, 0.0, 0.1, 0.2, 0.02, expected=outside)
    assert "expected_gap" not in numbers.known()
    assert EarlyGap(0.1, 4, outside).text.endswith("do not rely on it: " + outside.note)


def test_a_recording_gone_on_with_keeps_what_was_told(tmp_path) -> None:
    _, run = watched(Said((0.1, 0.9), 80), tmp_path, steps=40)
    assert not run.expected[0].prediction.reliable  # as a training of 40 steps it was told late
    forecast = Said((0.1, 0.9), 80)
    _, run = watched(forecast, tmp_path, steps=40, resume=True)
    assert [(m, task.run) for m, task, _ in forecast.asked] == [(0.9, None)]  # the start is no longer known
    assert run.steps == 80
    rows = load_recording(tmp_path).index["expected_gap"]
    assert [(row["moment"], row["step"]) for row in rows] == [(0.1, 8), (0.9, 72)]
    assert not any("do not rely" in row["text"] for row in rows)  # as one of 80 it was not
    index = json.loads((tmp_path / "trajectory.json").read_text())
    (tmp_path / "trajectory.json").write_text(json.dumps({**index, "expected_gap": [{"moment": "early"}]}))
    with pytest.raises(RunFolderError, match="'expected_gap' is not what a recorder writes"):
        load_recording(tmp_path)


def halfway() -> tuple[memspace.Task, dict[str, float]]:
    """The training of ``watched`` after 20 of 40 steps, and its numbers."""
    start = {k: v.clone() for k, v in network(0).state_dict().items()}
    model, _ = watched(None, steps=20)
    run = memspace.Run((start, dict(model.state_dict())), (0.0, 2.0), (0, 20))
    task = memspace.Task(model.eval(), data(0), run=run)
    measured = measure_network(task, settings=SETTINGS, only=PREDICTORS)
    sizes = {EXAMPLES: 120.0, PARAMETERS: float(sum(p.numel() for p in model.parameters()))}
    return task, {m.name: m.value for m in measured.measurements} | sizes


def calibrated(numbers: dict[str, float], moment: float) -> GapModel:
    return fit_gap(zoo_around(numbers), moment=moment, settings=settings_of(SETTINGS))


def test_a_calibration_tells_what_predict_gap_tells_of_that_network(tmp_path) -> None:
    task, numbers = halfway()
    save_gap_model(calibrated(numbers, 0.5), tmp_path / "gap.json")
    _, run = watched(memspace.GapForecast(str(tmp_path / "gap.json"), planned=40))
    (early,) = run.expected
    assert early.step == 20
    expected = memspace.predict_gap(task, calibration=tmp_path / "gap.json").prediction
    assert early.prediction == expected
    assert not expected.reliable  # the made-up zoo is of ten outputs
    assert "3 outputs (calibrated: 10 to 10)" in early.text
    assert "told at 50% of the training, for its end" in early.text


def test_what_could_never_be_told_is_one_sentence_before_the_training(tmp_path, monkeypatch) -> None:
    numbers = dict.fromkeys((*PREDICTORS,), 1.0)
    model = calibrated(numbers, 0.5)
    with pytest.raises(SettingsError, match="two calibrations are of one moment"):
        memspace.GapForecast([model, model])
    with pytest.raises(SettingsError, match="calibrations is 3"):
        memspace.GapForecast(3)
    with pytest.raises(SettingsError, match="planned"):
        memspace.GapForecast(model, planned=0)
    with pytest.raises(DataError, match="the calibration cannot be read"):
        memspace.GapForecast(tmp_path / "nowhere.json")
    monkeypatch.setattr("memspace.gap.file.shipped_gap_model", lambda: None)
    with pytest.raises(DataError, match="no calibration is shipped"):
        memspace.GapForecast()
    with pytest.raises(SettingsError, match=r"expect is .gap\.json."):
        watched("gap.json")
    with pytest.raises(TaskError, match="the output law is gaussian"):
        watched(memspace.GapForecast(model), likelihood=memspace.Gaussian(1.0))
    old = replace(model, settings={**model.settings, "version": -1})
    with pytest.raises(DataError, match="another version of the measures"):
        watched(memspace.GapForecast(old))
