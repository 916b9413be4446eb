"""Measures of one small network: those of the ordinary audit where the sample is all examples, and in seconds."""

from __future__ import annotations

import math
import time
from pathlib import Path

import pytest
import torch

from memspace.auditing.read import read_task
from memspace.auditing.settings import AuditSettings
from memspace.errors import SettingsError
from memspace.measurement import Measurement
from memspace.measures.declaration import MeasureDeclaration, declaration_of, measure
from memspace.measures.predictors.values import Sisters, TrainingCurve
from memspace.measures.spectrum import layer_table
from memspace.metric.fisher import build
from memspace.value import Value
from memspace.verbs.zoo import WorkSettings, train_zoo
from memspace.zoo import measuring
from memspace.zoo.declaration import load_zoo
from memspace.zoo.measuring import ALL_MEASURES, GROUPS, NetworkMeasures, ZooSettings, measure_network
from tests.zoo.measured_networks import FAMILIES, character_task, perceptron_task


def _only(*groups: str, **settings: int) -> ZooSettings:
    """Of these groups alone: the measures of other modules have their own tests, and some are dear."""
    return ZooSettings(without=tuple(g for g in GROUPS if g not in groups), **settings)


OURS = ("complexity", "geometry", "action", "depth", "curvature", "evidence", "spectrum", "left out")
CLASSES = [name for name in FAMILIES if name != "character"]
# As the audit reads: all examples, 512 of them followed along the training, 96 for the slope, half of them along depth.
WHOLE = _only(*OURS, examples=10_000, rows=10_000, followed=512, sloped=96, checkpoints=100, deep=18)
ELSEWHERE = {"action.over_straight_line", "action.straight_line_length"}  # of a line with fewer points
DECLARED = {d.name: d for d in map(declaration_of, ALL_MEASURES) if isinstance(d, MeasureDeclaration)}


def _by_name(found: NetworkMeasures) -> dict[str, Measurement]:
    return {m.name: m for m in found.measurements}


@pytest.mark.parametrize("name", CLASSES)
def test_on_all_examples_they_are_those_of_the_audit(name: str) -> None:
    task = FAMILIES[name](n=36, width=6, steps=30, dtype=torch.float64)
    ours = measure_network(task, settings=WHOLE)
    workspace, _ = read_task(task, AuditSettings(damping=WHOLE.damping, refits=0))
    theirs, _ = workspace.measure_all([DECLARED[m.name].function for m in ours.measurements if m.name in DECLARED])
    compared = {m.name: m for m in theirs if m.name not in ELSEWHERE}
    assert len(compared) >= 38
    for mine in ours.measurements:
        if mine.name in compared:
            other = compared[mine.name]
            assert mine.value == pytest.approx(other.value, rel=1e-6, abs=1e-12), mine.name
            assert (mine.n, mine.unit, mine.interval is None) == (other.n, other.unit, other.interval is None)
    table = workspace.call(layer_table, "layers")
    assert ours.layers["fisher_trace"] == pytest.approx(table["fisher_trace"], rel=1e-9)
    assert list(ours.layers["parameters"]) == table["parameters"]


@pytest.mark.parametrize("name", FAMILIES)
def test_everything_is_a_number_or_has_a_reason(name: str) -> None:
    task = FAMILIES[name](n=30, width=4, steps=20)
    before = {k: v.clone() for k, v in task.model.state_dict().items()}
    begun = time.perf_counter()
    found = measure_network(task, settings=ZooSettings(rows=100))
    print(f"{name}: {time.perf_counter() - begun:.2f} s, {found.seconds}")
    assert all(math.isfinite(m.value) for m in found.measurements)
    assert all(u.reason and u.remedy for u in found.unmeasured)
    names = [q.name for q in (*found.measurements, *found.unmeasured)]
    assert len(set(names)) == len(names)
    assert set(names) >= {n for n in DECLARED if n.startswith(("complexity", "fisher", "curvature"))}
    assert {"action.length", "action.inefficiency", "action.excess", "depth.ratio"} <= set(names)
    reasons = {u.name: u.reason for u in found.unmeasured}
    assert ("depth.ratio" in reasons) == (name not in ("perceptron", "character"))
    assert ("Jacobian rows" in reasons.get("action.excess", "")) == (name == "character")
    assert all(torch.equal(v, before[k]) for k, v in task.model.state_dict().items())
    assert sum(found.layers["fisher_trace"]) == pytest.approx(_by_name(found)["fisher.trace"].value, rel=1e-5)
    assert sum(found.layers["parameters"]) == sum(p.numel() for p in task.model.parameters())


def test_a_sample_says_how_large_it_is_and_estimates_the_trace() -> None:
    task = perceptron_task(n=100, width=8, steps=30)
    read = "complexity", "geometry", "left out"
    parts = [_by_name(measure_network(task, settings=_only(*read, rows=250, seed=s))) for s in range(4)]
    whole = _by_name(measure_network(task, settings=_only(*read, rows=1000)))
    for part in parts:
        assert "25 drawn of 100 examples" in part["fisher.largest_eigenvalue"].estimator
        assert part["fisher.trace"].n == 25
        assert part["complexity.distance_from_null"] == whole["complexity.distance_from_null"]  # of all examples
    assert "of all 100 examples" in whole["fisher.largest_eigenvalue"].estimator
    traces = torch.tensor([p["fisher.trace"].value for p in parts])
    errors = [(m.standard_error or math.nan) for m in (p["fisher.trace"] for p in parts)]
    # The mean of four samples of 25: within four standard errors, which the samples themselves state.
    assert abs(float(traces.mean()) - whole["fisher.trace"].value) < 4 * sum(errors) / len(errors) / 2
    assert not parts[0]["memory.loo_loss_rise"].reliable
    assert "25 of 100 examples stand for all" in parts[0]["memory.loo_loss_rise"].note
    assert whole["memory.loo_loss_rise"].reliable
    # A sample has fewer directions than all examples: it can only show less information.
    assert all(p["complexity.information"].value < whole["complexity.information"].value for p in parts)


def test_rows_of_sampled_labels_estimate_the_metric_of_sequences() -> None:
    task = character_task(n=16, width=6, steps=0, dtype=torch.float64)
    exact = build(task, "diagonal").trace().value
    errors, misses = [], []
    for seed in range(4):
        trace = _by_name(measure_network(task, settings=_only("geometry", rows=16 * 3, seed=seed)))["fisher.trace"]
        assert trace.n == 16
        assert trace.interval is not None
        errors.append(trace.standard_error)
        misses.append(trace.value - exact)
    # All 16 sequences are read, so that labels alone are drawn; the errors stated hold the examples' spread as well.
    assert abs(sum(misses) / 4) < 4 * sum(e for e in errors if e is not None) / 4 / 2
    assert len(set(misses)) == 4


def test_a_sequence_s_leave_one_out_is_of_first_order() -> None:
    task = character_task(n=30, width=6, steps=20)
    found = _by_name(measure_network(task, settings=_only("left out", rows=30 * 3)))
    rise, influence = found["memory.loo_loss_rise"], found["memory.self_influence"]
    assert "first order" in rise.estimator
    assert rise.value >= influence.value > 0  # without its own rows nothing holds an example back


def test_without_a_recorded_training_its_path_has_a_reason() -> None:
    found = measure_network(perceptron_task(n=40, width=5, steps=0), settings=_only("action", "complexity"))
    reasons = {u.name: u.reason for u in found.unmeasured}
    assert reasons["action.length"] == "no checkpoints of the training were recorded"
    assert "complexity.distance_from_initialisation" in reasons


def test_the_excess_is_read_on_some_checkpoints_and_the_path_on_all() -> None:
    task = perceptron_task(n=60, width=8, steps=60)
    assert task.run is not None
    count = len(task.run.states)
    thinned = _by_name(measure_network(task, settings=_only("action", checkpoints=5)))
    whole = _by_name(measure_network(task, settings=_only("action", checkpoints=50)))
    none = measure_network(task, settings=_only("action", sloped=0))
    assert thinned["action.length"] == whole["action.length"] == _by_name(none)["action.length"]
    assert f"{count} checkpoints" in thinned["action.length"].estimator
    assert thinned["action.excess"] != whole["action.excess"]
    assert "was asked for" in next(u.reason for u in none.unmeasured if u.name == "action.excess")


def test_groups_that_are_left_out_cost_nothing_and_must_exist() -> None:
    task = perceptron_task(n=30, width=4, steps=5)
    found = measure_network(task, settings=_only("geometry"))
    assert set(found.seconds) == {"reading", "geometry"}
    assert all(m.name.startswith(("fisher", "parameters")) for m in found.measurements)
    with pytest.raises(SettingsError, match="there is no group of measures 'sharpnes'"):
        measure_network(task, settings=ZooSettings(without=("sharpnes",)))


def test_values_of_other_networks_and_of_the_curve_are_passed_on() -> None:
    @measure("test.passed_on", chapter="nowhere", unit="1", estimator="count")
    def passed_on(curve: TrainingCurve, sisters: Sisters) -> Value:
        """Whatever was given."""
        return Value(float(len(curve.step) + len(sisters.others)), 1)

    task = perceptron_task(n=40, width=5, steps=0)
    curve = TrainingCurve((0, 1), (2.0, 1.0), None, 1.0)
    sisters = Sisters(torch.zeros(2, 2), torch.zeros(2, 2), ((torch.zeros(2, 2), torch.zeros(2, 2)),))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(measuring, "WHOLE", {"test": (passed_on,)})
        patch.setattr(measuring, "DRAWN", {})
        assert _by_name(measure_network(task, curve=curve, sisters=sisters))["test.passed_on"].value == 3
        assert measure_network(task, sisters=sisters).unmeasured[0].reason


@pytest.mark.parametrize("wrong", [{"rows": 1}, {"damping": 0.0}, {"epsilon": -1.0}, {"seed": -1}, {"labels": "8"}])
def test_settings_out_of_range_are_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(SettingsError):
        ZooSettings(**wrong)  # type: ignore[arg-type]


def test_a_zoo_leaves_groups_of_measures_out(tmp_path: Path) -> None:
    text = 'name = "short"\nwithout = ["sharpness", "hessian"]\n[[star]]\nseeds = [0]\n[star.centre]\n'
    text += (
        'family = "mlp"\ndata = "digits"\nwidth = 4\ndepth = 1\nrate = 1.0\nbatch = 32\ndecay = 0.0\ndropout = 0.0\n'
    )
    text += 'label_noise = 0.0\nsize = 64\noptimiser = "adam"\ntarget = 1.0\nmost = 50\n'
    path = tmp_path / "short.toml"
    path.write_text(text)
    assert load_zoo(path).without == ("sharpness", "hessian")
    store = train_zoo(path, out=tmp_path / "store", settings=WorkSettings(1, stages=("train", "measures"))).store
    names = set(store.rows("measured")["name"].to_list())
    assert "norms.frobenius" in names
    assert not [n for n in names if n.startswith(("sharpness.", "loss.hessian"))]
    path.write_text(text.replace('["sharpness", "hessian"]', '"sharpness"'))
    with pytest.raises(SettingsError, match="no list of names"):
        load_zoo(path)
