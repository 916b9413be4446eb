"""Output laws of one file outside the package do what those inside do."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from memspace.task.law import Likelihood
from memspace.testing import check_law
from tests.extension.laws import Laplace, NegativeBinomial, OrdinalClasses
from tests.extension.outside import run_outside

LAWS = Path(__file__).with_name("laws.py").read_text(encoding="utf-8")
SETUP = """
import json, sys, warnings
import torch
from torch import nn
import memspace
from memspace.extensions import load_extensions
load_extensions()
import outside

warnings.simplefilter("ignore")
torch.manual_seed(0)
law = {law}
x = torch.randn(90, 3)
f = x[:, :1] + 0.5
y = law.sample(f, torch.Generator().manual_seed(1))
model = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 1))
optimiser = torch.optim.Adam(model.parameters(), lr=0.02)

def step():
    optimiser.zero_grad()
    law.nll(model(x[:60]), y[:60]).mean().backward()
    optimiser.step()
"""
AUDIT = """
for _ in range(100):
    step()
task = memspace.Task(model, (x[:60], y[:60]), likelihood=law, test=(x[60:], y[60:]))
said = {{"plans": [], "laws": [], "measured": []}}
for representation in sys.argv[1:]:
    results = memspace.audit(task, settings=memspace.Settings(representation=representation, damping=0.01))
    said["plans"].append(results.plan)
    said["laws"].append(results.facts["output law"])
    said["measured"].append([m.name for c in results.chapters for m in c.measurements])
said["columns"] = list(memspace.labels(task, folds=0, reasons=0).table)
print(json.dumps(said))
"""
WATCH = """
with memspace.watch(model, (x[:60], y[:60]), likelihood=law, out="run") as recorder:
    for _ in range(20):
        step()
        recorder.step()
from memspace.auditing.chapters.recording import recording_results
from memspace.task.recording import load_recording
recording = load_recording("run")
task = memspace.Task(model, (x[:60], y[:60]), likelihood=law)
first, last = recording.run.states[0], recording.run.states[-1]
few = memspace.CompareSettings(examples=20, effort=5)
path = [m.name for m in recording_results(recording, {{}}).chapters[0].measurements]
apart = memspace.compare(task, first, last, settings=few).geodesic
penalties = [memspace.FisherProximal(model, law, 1.0, form=form) for form in ("kl", "fisher-rao")]
step()
moved = [float(penalty(x[:60])[1]) for penalty in penalties]
print(json.dumps([recording.law == law, path, apart.lower, apart.length.value, moved]))
"""


def _run(folder: Path, law: str, script: str, *words: str) -> Any:
    done = run_outside(folder, LAWS, (SETUP + script).format(law=law), *words)
    assert done.returncode == 0, done.stderr[-2000:]
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.parametrize(
    ("law", "outputs"),
    [(NegativeBinomial(), 2), (NegativeBinomial(5.0), 1), (Laplace(), 2), (OrdinalClasses(), 1)],
    ids=lambda value: getattr(value, "name", value),
)
def test_a_few_methods_make_a_whole_law(law: Likelihood, outputs: int) -> None:
    check_law(law, torch.randn(30, outputs, generator=torch.Generator().manual_seed(1)))


@pytest.mark.parametrize(
    ("law", "name", "metrics", "measured", "column"),
    [
        ("outside.NegativeBinomial()", "negative binomial", ("dual", "ekfac"), "outliers.share", "p_outlier"),
        ("outside.Laplace()", "laplace", ("dual",), "regression.r2_test", "p_outlier"),
        ("outside.OrdinalClasses()", "ordinal", ("ekfac",), "generalisation.test_accuracy", "p_wrong_label"),
    ],
    ids=["counts", "numbers", "grades"],
)
def test_it_is_audited_and_its_labels_are_judged(
    tmp_path: Path, law: str, name: str, metrics: tuple[str, ...], measured: str, column: str
) -> None:
    said = _run(tmp_path, law, AUDIT, *metrics)
    assert said["laws"] == [name] * len(metrics)
    for metric, plan, names in zip(metrics, said["plans"], said["measured"], strict=True):
        assert f"representation: {metric}" in plan
        assert {measured, "complexity.distance_from_null", "generalisation.loo_estimate"} <= set(names)
    assert column in said["columns"]


@pytest.mark.parametrize("law", ["outside.NegativeBinomial(3.0)", "outside.OrdinalClasses((-0.5, 0.5))"])
def test_it_is_recorded_read_again_compared_and_penalised(tmp_path: Path, law: str) -> None:
    same, path, lower, length, moved = _run(tmp_path, law, WATCH)
    assert same
    assert path
    assert 0 < lower <= length
    assert moved[0] == pytest.approx(moved[1], rel=0.1)  # both are half the squared step, to second order
    assert moved[0] > 0
