"""An interrupted audit goes on where it stopped, and ends with the same results."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from operator import attrgetter
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from memspace.auditing.audit import audit_task
from memspace.auditing.job import ReadingJob
from memspace.auditing.plan import AuditSettings, make_plan
from memspace.auditing.read import read as reading_of
from memspace.auditing.results import Results, clean
from memspace.auditing.store import Store
from memspace.passes.space import ParameterSpace
from memspace.progress import Silent
from memspace.task.data import Data
from memspace.task.task import Task

audit_module = importlib.import_module("memspace.auditing.audit")
job_module = importlib.import_module("memspace.auditing.job")
keep_module = importlib.import_module("memspace.metric.keep")
exact_module = importlib.import_module("memspace.metric.exact")
ekfac_module = importlib.import_module("memspace.metric.ekfac")

# torch compiles its own forward-mode rules at first use with a call it has deprecated.
pytestmark = pytest.mark.filterwarnings("ignore:.torch.jit:DeprecationWarning")

KEY = {"task": "resume"}
TENSORS = (
    "training.f",
    "training.y",
    "curvature.diagonal",
    "leverage.matrices",
    "left_out_losses.loss",
    "queries.scores",
    "influence.parts",
)
CHAPTERS = ("geometry", "complexity", "capacity", "robustness", "efficiency", "stored", "generalisation")


def _net(seed: int) -> nn.Module:
    generator = torch.Generator().manual_seed(seed)
    model = nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 3))
    with torch.no_grad():
        for p in model.parameters():
            p.copy_(0.5 * torch.randn(p.shape, generator=generator))
    return model


@pytest.fixture
def task() -> Task:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(40, 4, generator=generator)
    y = x[:, :3].argmax(1)
    return Task(_net(0), Data((x[:30], y[:30])), test=Data((x[30:], y[30:])), refit=lambda _index, seed: _net(seed))


def _content(results: Results) -> Any:
    d = results.to_dict()
    for key in ("created", "costs"):
        del d[key]
    for chapter in d["chapters"]:
        del chapter["seconds"]
    return d, clean(dict(results.tables))


class _Counted:
    """Replaces a function in modules: counts its calls, and is interrupted at the one asked for, once."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, modules: Any, name: str, stop_at: int = 0) -> None:
        modules = modules if isinstance(modules, list) else [modules]
        self.calls, self.stop_at, self.inner = 0, stop_at, getattr(modules[0], name)
        for module in modules:
            monkeypatch.setattr(module, name, self)

    def __call__(self, *args: Any, **keywords: Any) -> Any:
        self.calls += 1
        if self.calls == self.stop_at:
            raise KeyboardInterrupt
        return self.inner(*args, **keywords)


def test_ctrl_c_between_chapters(task: Task, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = AuditSettings(representation="dual")
    whole = audit_task(task, settings)
    made: list[str] = []
    plain = audit_module.make_chapter

    def counted(declared: Any, workspace: Any) -> Any:
        made.append(declared.id)
        if made.count("robustness") == 1 and declared.id == "robustness":
            raise KeyboardInterrupt
        return plain(declared, workspace)

    monkeypatch.setattr(audit_module, "make_chapter", counted)
    refits = _Counted(monkeypatch, job_module, "refit_held_out")
    before = {k: v.clone() for k, v in task.model.state_dict().items()}
    random = torch.get_rng_state()
    with pytest.raises(KeyboardInterrupt):
        audit_task(task, settings, Store(tmp_path, KEY))
    assert torch.equal(random, torch.get_rng_state())
    assert all(torch.equal(v, before[k]) for k, v in task.model.state_dict().items())
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in task.model.modules())
    store = Store(tmp_path, KEY)
    assert store.resumed
    assert [c for c in CHAPTERS if store.has_chapter(c)] == list(CHAPTERS[:3])
    assert store.has("held-out")
    resumed = audit_task(task, settings, store)
    assert refits.calls == 1
    assert {n: made.count(n) for n in CHAPTERS} == {n: 2 if n == "robustness" else 1 for n in CHAPTERS}
    assert _content(resumed) == _content(whole)
    store.save_results(resumed)
    assert not Store(tmp_path, KEY).resumed


def test_ctrl_c_through_the_progress_listener(task: Task, tmp_path: Path) -> None:
    class Impatient(Silent):
        ticks = 0

        def advance(self, handle: int, ticks: int = 1) -> None:
            self.ticks += 1
            if self.ticks == 7:
                raise KeyboardInterrupt

    settings = AuditSettings(representation="dual")
    task.model.train()
    with pytest.raises(KeyboardInterrupt):
        audit_task(task, settings, Store(tmp_path, KEY), Impatient())
    assert task.model.training
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in task.model.modules())
    assert Store(tmp_path, KEY).resumed


@pytest.mark.parametrize(("stop_at", "kept"), [(1, []), (2, ["factors"]), (3, ["factors", "eigenvalues"])])
def test_ctrl_c_in_a_pass_of_the_reading(
    task: Task, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stop_at: int, kept: list[str]
) -> None:
    settings = AuditSettings(representation="ekfac", damping=0.1)
    space = ParameterSpace(task.model)
    plan = make_plan(task, space, settings)

    def read(store: Store) -> Any:
        return reading_of(ReadingJob(task, space, plan, settings, store, Silent()))

    whole = read(Store(tmp_path / "whole", KEY))
    refits = _Counted(monkeypatch, job_module, "refit_held_out")
    passes = _Counted(monkeypatch, [ekfac_module, keep_module], "run_pass", stop_at=stop_at)
    folder = tmp_path / "run"
    with pytest.raises(KeyboardInterrupt):
        read(Store(folder, KEY))
    store = Store(folder, KEY)
    assert store.resumed
    assert [s for s in ("factors", "eigenvalues", "leverage") if store.has(s)] == kept
    begun = passes.calls
    resumed = read(store)
    assert refits.calls == 1
    assert passes.calls - begun == 4 - len(kept)  # factors, eigenvalues, query gradients, leverage
    for name in TENSORS:
        assert torch.equal(attrgetter(name)(resumed), attrgetter(name)(whole)), name
    assert resumed.curvature.fidelity == whole.curvature.fidelity
    assert _eigenvalues(resumed) == _eigenvalues(whole)


@pytest.mark.parametrize(("stop_at", "kept"), [(1, []), (2, ["rows", "gram"]), (3, ["rows", "gram"])])
def test_ctrl_c_in_a_pass_of_the_exact_reading(
    task: Task, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stop_at: int, kept: list[str]
) -> None:
    settings = AuditSettings(representation="dual", damping=0.1)
    space = ParameterSpace(task.model)
    plan = make_plan(task, space, settings)

    def read(store: Store) -> Any:
        return reading_of(ReadingJob(task, space, plan, settings, store, Silent()))

    whole = read(Store(tmp_path / "whole", KEY))
    assert Store(tmp_path / "whole", KEY).has("diagonal")
    passes = _Counted(monkeypatch, [exact_module, keep_module], "run_pass", stop_at=stop_at)
    folder = tmp_path / "run"
    with pytest.raises(KeyboardInterrupt):
        read(Store(folder, KEY))
    store = Store(folder, KEY)
    assert store.resumed
    assert [s for s in ("rows", "gram", "diagonal") if store.has(s)] == kept
    begun = passes.calls
    resumed = read(store)
    assert passes.calls - begun == 3 - bool(kept)  # rows of the training data, rows of the queries, diagonal
    for name in (*TENSORS, "left_out.f"):
        assert torch.equal(attrgetter(name)(resumed), attrgetter(name)(whole)), name
    assert torch.equal(resumed.curvature.metric.eigenvalues(), whole.curvature.metric.eigenvalues())


def _eigenvalues(reading: Any) -> list[float]:
    return list(reading.curvature.metric.eigenvalues().tolist())


def test_other_settings_start_anew(task: Task, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _Counted(monkeypatch, audit_module, "make_chapter", stop_at=2)
    run: Callable[[Store], Results] = lambda s: audit_task(task, AuditSettings(representation="dual"), s)  # noqa: E731
    with pytest.raises(KeyboardInterrupt):
        run(Store(tmp_path, KEY))
    other = Store(tmp_path, KEY | {"settings": {"seed": 1}})
    assert not other.resumed
    assert not other.has_chapter("geometry")
