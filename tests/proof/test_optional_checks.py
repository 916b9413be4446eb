"""A check that fails costs no finished work."""

import warnings
from functools import partial
from typing import Any

import pytest
import torch
from torch import nn

import memspace
from memspace.attempt import attempt
from memspace.attribution import prepared
from memspace.auditing import audit, ekfac_backend, repeated
from memspace.auditing.chapters import depth, inputs
from memspace.errors import DataError, Interrupted, OutputError
from memspace.measurement import Unmeasured
from memspace.measures import complexity, pruning_measures, rounded_weights, spectrum, weight_noise

SAID = "it failed with RuntimeError: no derivative of a derivative"


def _task() -> memspace.Task:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 3)).eval()
    return memspace.Task(model=model, train=(torch.randn(80, 6), torch.randint(0, 3, (80,))))


def _fail(*_: object, **__: object) -> Any:
    raise RuntimeError("no derivative of a derivative\nand more")


def test_scores_outlive_a_residual_that_cannot_be_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    task = _task()
    want = memspace.influence(task, [0, 1], engine="ekfac", damping=0.1).scores
    monkeypatch.setattr(prepared, "solution_error", _fail)
    found = memspace.influence(task, [0, 1], engine="ekfac", damping=0.1)
    assert torch.equal(found.scores, want)
    assert not found.reliable  # nobody knows how far EKFAC is off
    assert "not held against exact products" in found.note
    absent = found.diagnostics[0]
    assert isinstance(absent, Unmeasured)
    assert absent.reason == SAID


def _fail_as(name: str, *_: object, **__: object) -> Any:
    raise RuntimeError(f"no {name}")


STAGES = {  # what fails, and the measure that is then absent
    (ekfac_backend, "_fidelity"): "fisher.fidelity_error",
    (spectrum, "spectral_density"): "fisher.trace.lanczos",
    (complexity, "FisherOperator"): "complexity.fisher_rao",
    (weight_noise, "noise_curve"): "robustness.kl_ratio_small",
    (rounded_weights, "predicted_kl"): "robustness.quantised_8bit.kl",
    (inputs, "probed_inputs"): "input.lambda_max",
    (pruning_measures, "prune"): "efficiency.fisher_inverse.smallest_share",
    (repeated, "whitening"): "duplicates.exact.train",
    (depth, "depth_action"): "depth.ratio",
}


def test_an_audit_outlives_optional_stages_that_fail(monkeypatch: pytest.MonkeyPatch) -> None:
    for module, name in STAGES:
        monkeypatch.setattr(module, name, partial(_fail_as, name))
    found = memspace.audit(_task(), settings=memspace.Settings(representation="ekfac"))
    absent = {u.name: u.reason for c in found.chapters for u in c.unmeasured}
    assert {measure: absent.get(measure) for measure in STAGES.values()} == {
        measure: f"it failed with RuntimeError: no {name}" for (_, name), measure in STAGES.items()
    }
    kept = {m.name for c in found.chapters for m in c.measurements}
    assert {"fisher.trace", "complexity.information", "capacity.bits_used", "memory.self_influence"} <= kept
    assert {"efficiency.smallest_share", "damping"} <= kept
    assert len(found.chapters) == 9


def test_a_whole_chapter_that_fails_leaves_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    plain = audit.make_chapter

    def make(declared: Any, workspace: Any) -> Any:
        return _fail() if declared.id in ("geometry", "action", "robustness") else plain(declared, workspace)

    monkeypatch.setattr(audit, "make_chapter", make)
    found = memspace.audit(_task(), settings=memspace.Settings())
    empty = {c.id for c in found.chapters if not c.measurements}
    assert empty == {"geometry", "action", "robustness", "disentanglement"}
    assert all(u.reason == SAID for c in found.chapters if c.id in empty - {"disentanglement"} for u in c.unmeasured)


def test_refusals_keep_their_advice_and_faults_are_warned_of() -> None:
    def refuse() -> None:
        raise DataError("the data are gone", where="here", remedy="bring them back")

    def slip() -> None:
        raise TypeError("not a number")

    found = attempt("some.measure", refuse)
    assert found == Unmeasured("some.measure", "the data are gone (here)", "bring them back")
    with pytest.warns(RuntimeWarning, match=r"some\.measure was not measured: it failed with TypeError: not a number"):
        found = attempt("some.measure", slip)
    assert isinstance(found, Unmeasured)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert attempt("some.measure", lambda: 3) == 3


@pytest.mark.parametrize(
    "stop", [KeyboardInterrupt(), Interrupted("stopped", where="", remedy=""), OutputError("full", where="", remedy="")]
)
def test_what_ends_the_work_is_not_swallowed(stop: BaseException) -> None:
    def end() -> None:
        raise stop

    with pytest.raises(type(stop)):
        attempt("some.measure", end)
