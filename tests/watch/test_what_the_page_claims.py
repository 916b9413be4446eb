"""The page of a recording says in which σ its lengths are, and which of its live numbers have no known error."""

import pytest
import torch
from torch import nn

import memspace
from memspace.action.training import training_action
from memspace.auditing.chapters.recording import recording_results
from memspace.progress import Silent
from memspace.task.recording import load_recording
from tests.watch.training import watched


def _regression(out, law):
    torch.manual_seed(0)
    x = torch.randn(80, 3)
    y = 5 * x @ torch.randn(3, 1) + torch.randn(80, 1)
    model = nn.Linear(3, 1)
    optimizer = torch.optim.SGD(model.parameters(), 0.05)
    settings = memspace.WatchSettings(every=1, slow=False, probe=80, spacing=0.3)
    with memspace.watch(model, (x, y), optimizer, likelihood=law, out=out, settings=settings):
        for _ in range(60):
            optimizer.zero_grad()
            ((model(x) - y).square().mean() / 2).backward()
            optimizer.step()
    task = memspace.Task(model=model, train=(x, y), likelihood=law, run=memspace.load_run(out))
    results = recording_results(load_recording(out), {})
    page = {m.name: m.value for c in results.chapters for m in c.measurements}
    audit = {m.name: m.value for m in training_action(task, progress=Silent()).measurements}
    return task, results.facts, page, audit


def test_a_recording_of_an_unknown_sigma_is_in_the_targets_unit_and_says_so(tmp_path):
    task, facts, page, audit = _regression(tmp_path / "r", memspace.Gaussian())
    sigma = task.likelihood.sigma
    assert abs(sigma - 1) > 0.05  # else nothing is told apart
    assert page["action.length"] / sigma == pytest.approx(audit["action.length"], rel=1e-4)
    assert "the targets' unit" in facts["σ"]


def test_a_given_sigma_makes_recording_and_audit_agree(tmp_path):
    _, facts, page, audit = _regression(tmp_path / "r", memspace.Gaussian(2.5))
    assert page["action.length"] == pytest.approx(audit["action.length"], rel=1e-4)
    assert page["action.ambient_distance"] == pytest.approx(audit["action.ambient_distance"], rel=1e-4)
    assert "as given" in facts["σ"]


def test_live_numbers_whose_error_is_unknown_are_not_to_be_relied_on(tmp_path):
    watched(tmp_path / "r", 60, slow=True)
    found = load_recording(tmp_path / "r")
    live = {m.name: m for c in recording_results(found, {}).chapters if c.id == "live" for m in c.measurements}
    assert {"watch.loss", "watch.length", "watch.excess", "watch.leave_one_out_gap"} <= set(live)
    for name in ("watch.excess", "watch.leave_one_out_gap"):
        assert not live[name].reliable
        assert "its error is not known" in live[name].note
    assert live["watch.excess"].n == found.index["slope_examples"] > 0
    assert all(m.interval is None and m.note for m in live.values())
