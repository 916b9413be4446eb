"""Measures of one small network: those of the ordinary audit where the sample is all examples, and in seconds."""

from __future__ import annotations

import math
import time

import pytest
import torch

from memspace.auditing.read import read_task
from memspace.auditing.settings import AuditSettings
from memspace.errors import SettingsError
from memspace.measurement import Measurement
from memspace.measures.declaration import MeasureDeclaration, declaration_of
from memspace.measures.spectrum import layer_table
from memspace.metric.fisher import build
from memspace.zoo.measuring import ALL_MEASURES, Measures, ZooSettings, measure_network
from tests.zoo.measured_networks import FAMILIES, character_task, perceptron_task

CLASSES = [name for name in FAMILIES if name != "character"]
WHOLE = ZooSettings(rows=10_000)
DECLARED = {d.name: d for d in map(declaration_of, ALL_MEASURES) if isinstance(d, MeasureDeclaration)}


def _by_name(found: Measures) -> dict[str, Measurement]:
    return {m.name: m for m in found.measurements}


@pytest.mark.parametrize("name", CLASSES)
def test_on_all_examples_they_are_those_of_the_audit(name: str) -> None:
    task = FAMILIES[name](n=60, width=6, steps=30, dtype=torch.float64)
    ours = measure_network(task, settings=WHOLE)
    workspace, _ = read_task(task, AuditSettings(damping=WHOLE.damping, refits=0))
    names = [m.name for m in ours.measurements if m.name in DECLARED]
    theirs, absent = workspace.measure_all([DECLARED[n].function for n in names])
    assert not absent
    assert len(theirs) >= 25
    for mine, other in zip((_by_name(ours)[n] for n in names), theirs, strict=True):
        assert mine.value == pytest.approx(other.value, rel=1e-6, abs=1e-12), mine.name
        assert (mine.name, mine.n, mine.unit) == (other.name, other.n, other.unit)
    table = workspace.call(layer_table, "layers")
    assert ours.layers["fisher_trace"] == pytest.approx(table["fisher_trace"], rel=1e-9)
    assert list(ours.layers["parameters"]) == table["parameters"]


@pytest.mark.parametrize("name", FAMILIES)
def test_everything_is_a_number_or_has_a_reason(name: str) -> None:
    task = FAMILIES[name](n=90, width=6, steps=20)
    before = {k: v.clone() for k, v in task.model.state_dict().items()}
    begun = time.perf_counter()
    found = measure_network(task, settings=ZooSettings(rows=200))
    print(f"{name}: {time.perf_counter() - begun:.2f} s, {found.seconds}")
    assert all(math.isfinite(m.value) for m in found.measurements)
    assert all(u.reason and u.remedy for u in found.unmeasured)
    names = [q.name for q in (*found.measurements, *found.unmeasured)]
    assert len(set(names)) == len(names)
    assert set(names) >= {n for n in DECLARED if n.startswith(("complexity", "fisher"))}
    assert all(torch.equal(v, before[k]) for k, v in task.model.state_dict().items())
    assert sum(found.layers["fisher_trace"]) == pytest.approx(_by_name(found)["fisher.trace"].value, rel=1e-5)
    assert sum(found.layers["parameters"]) == sum(p.numel() for p in task.model.parameters())


def test_a_sample_says_how_large_it_is_and_estimates_the_trace() -> None:
    task = perceptron_task(n=200, width=8, steps=30)
    parts = [_by_name(measure_network(task, settings=ZooSettings(rows=400, seed=s))) for s in range(4)]
    whole = _by_name(measure_network(task, settings=ZooSettings(rows=2000)))
    for part in parts:
        assert "40 drawn of 200 examples" in part["fisher.largest_eigenvalue"].estimator
        assert part["fisher.trace"].n == 40
        assert part["complexity.distance_from_null"] == whole["complexity.distance_from_null"]  # of all examples
    assert "of all 200 examples" in whole["fisher.largest_eigenvalue"].estimator
    traces = torch.tensor([p["fisher.trace"].value for p in parts])
    errors = [(m.standard_error or math.nan) for m in (p["fisher.trace"] for p in parts)]
    # The mean of four samples of 40: within four standard errors, which the samples themselves state.
    assert abs(float(traces.mean()) - whole["fisher.trace"].value) < 4 * sum(errors) / len(errors) / 2
    # A sample has fewer directions than all examples: it can only show less information.
    assert all(p["complexity.information"].value < whole["complexity.information"].value for p in parts)


def test_rows_of_sampled_labels_estimate_the_metric_of_sequences() -> None:
    task = character_task(n=24, width=6, steps=20, dtype=torch.float64)
    exact = build(task, "diagonal").trace().value
    errors, misses = [], []
    for seed in range(4):
        trace = _by_name(measure_network(task, settings=ZooSettings(rows=24 * 8, seed=seed)))["fisher.trace"]
        assert trace.n == 24
        assert trace.interval is not None
        errors.append(trace.standard_error)
        misses.append(trace.value - exact)
    # All 24 sequences are read, so that labels alone are drawn; the errors stated hold the examples' spread as well.
    assert abs(sum(misses) / 4) < 4 * sum(e for e in errors if e is not None) / 4 / 2
    assert len(set(misses)) == 4


def test_a_sequence_s_leave_one_out_is_of_first_order() -> None:
    task = character_task(n=30, width=6, steps=20)
    found = _by_name(measure_network(task, settings=ZooSettings(rows=30 * 8)))
    rise, influence = found["memory.loo_loss_rise"], found["memory.self_influence"]
    assert "first order" in rise.estimator
    assert rise.value >= influence.value > 0  # without its own rows nothing holds an example back


@pytest.mark.parametrize("wrong", [{"rows": 1}, {"damping": 0.0}, {"epsilon": -1.0}, {"seed": -1}, {"labels": "8"}])
def test_settings_out_of_range_are_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(SettingsError):
        ZooSettings(**wrong)  # type: ignore[arg-type]
