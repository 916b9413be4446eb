"""Factors that memory does not hold go to disk: the plan says so, nothing else changes, nothing is left behind."""

import errno
import os
from dataclasses import replace

import pytest
import torch
from torch import nn

from memspace import Categorical, Data, ParameterSpace, Task
from memspace.auditing.audit import AuditSettings, audit_task
from memspace.auditing.plan import make_plan
from memspace.auditing.store import Store
from memspace.errors import OutputError
from memspace.metric.ekfac import bases_of
from memspace.passes.engine import PassOptions, run_pass
from memspace.passes.offload import Disk
from memspace.passes.statistics import KroneckerFactors


def _task(width=256, n=30, seed=0, dtype=torch.float32):
    torch.manual_seed(seed)
    model = nn.Sequential(nn.Linear(6, width), nn.ReLU(), nn.Linear(width, 3)).to(dtype)
    return Task(model, Data((torch.randn(n, 6, dtype=dtype), torch.arange(n) % 3)), Categorical())


SMALL = AuditSettings(memory=2**21, representation="ekfac")


def test_the_plan_says_what_goes_to_disk():
    task = _task()
    plan = make_plan(task, ParameterSpace(task.model), SMALL)
    blocks = ParameterSpace(task.model).blocks
    assert plan.on_disk == 16 * sum(a * a + b * b for a, b in (b.shape for b in blocks))
    assert "on disk" in plan.text()
    roomy = make_plan(task, ParameterSpace(task.model), replace(SMALL, memory=2**28))
    assert roomy.on_disk == 0
    assert "on disk" not in roomy.text()


def test_factors_and_bases_on_disk_are_those_in_memory(tmp_path):
    task = _task()
    space = ParameterSpace(task.model)
    found = []
    for disk in (None, Disk(tmp_path)):
        factors = KroneckerFactors(space.blocks, "exact", disk)
        run_pass(task, space, [factors], PassOptions(batch=7))
        found.append((factors.factors(), bases_of(factors.each(), disk)[0]))
        assert not list(tmp_path.iterdir()), "files keep no name"
    (here, bases), (there, mapped) = found
    for name in here:
        torch.testing.assert_close(here[name].a, there[name].a, rtol=0, atol=0)
        torch.testing.assert_close(here[name].g, there[name].g, rtol=0, atol=0)
        torch.testing.assert_close(bases[name].a, mapped[name].a, rtol=0, atol=0)


def test_an_audit_with_factors_on_disk_gives_the_same_numbers(tmp_path):
    task = _task(dtype=torch.float64)  # the budget also sets the batches: in float32 sums would round differently
    results = []
    for name, settings in (("roomy", replace(SMALL, memory=2**28)), ("small", SMALL)):
        results.append(audit_task(task, settings, Store(tmp_path / name, {"of": name})))
    for a, b in zip(results[0].chapters, results[1].chapters, strict=True):
        for m, o in zip(a.measurements, b.measurements, strict=True):
            assert m.name == o.name
            assert o.value == pytest.approx(m.value, rel=1e-6, nan_ok=True), m.name


def test_a_full_disk_is_one_sentence(monkeypatch, tmp_path):
    def full(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "posix_fallocate", full)
    with pytest.raises(OutputError, match=r"cannot be stored on disk \(No space left"):
        audit_task(_task(), SMALL)
    with pytest.raises(OutputError):
        Disk(tmp_path).room((3, 4))
    assert not list(tmp_path.iterdir())


def test_the_sketch_follows_the_budget():
    task = _task(width=8, n=1200)
    space = ParameterSpace(task.model)
    whole = make_plan(task, space, AuditSettings())
    assert whole.principal_rows == 3500
    assert "3,500 of 3,600 Fisher rows" in whole.text()
    tight = make_plan(task, space, AuditSettings(memory=2**27))
    assert tight.representation == "dual"
    assert 1000 <= tight.principal_rows < 3500
    assert 16 * 3600 * tight.principal_rows <= 2**27
    assert make_plan(task, space, AuditSettings(memory=2**25)).representation == "ekfac"
