"""What a pass refutes after others had read the same is read anew; a network without gradients is one sentence."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import memspace
from memspace.auditing import audit
from memspace.auditing.store import Store
from memspace.errors import TaskError
from memspace.metric import exact, keep
from memspace.passes.engine import run_pass
from memspace.passes.guard import overruled
from memspace.passes.proof import RefutedError
from memspace.passes.statistics import Outputs
from memspace.passes.verify import verified_space
from memspace.task.task import Task


def _task(model: nn.Module | None = None) -> Task:
    g = torch.Generator().manual_seed(0)
    return Task(model or nn.Linear(4, 3), (torch.randn(20, 4, generator=g), torch.arange(20) % 3))


@pytest.mark.parametrize("passes", [0, 1])
def test_a_refutation_is_late_where_a_pass_had_ended_before(passes: int) -> None:
    task = _task(nn.Sequential(nn.Linear(4, 3)))
    space = verified_space(task)
    for _ in range(passes):
        run_pass(task, space, [Outputs()])
    overruled(task, space, RefutedError({"0"}), task.train.batch([0, 1]))
    assert space.refuted == {"0"}
    assert space.late is bool(passes)


def test_an_audit_reads_all_anew_after_a_late_refutation(monkeypatch: pytest.MonkeyPatch) -> None:
    task, seen, plain = _task(nn.Sequential(nn.Linear(4, 3))), [], audit.read

    def read(*given: Any) -> Any:
        found = plain(*given)
        seen.append(set(given[0].space.refuted))
        if len(seen) == 1:  # a module turns out to be wrong after the first pass had ended
            overruled(task, given[0].space, RefutedError({"0"}), task.train.batch([0, 1]))
        return found

    monkeypatch.setattr(audit, "read", read)
    found = memspace.audit(task)
    assert seen == [set(), {"0"}]
    assert "differentiated example by example: 0" in found.facts["parameters read"]


class _Detached(nn.Module):
    def __init__(self, how: Any) -> None:
        super().__init__()
        self.layer, self.how = nn.Linear(4, 3), how

    def forward(self, x: Tensor) -> Tensor:
        with self.how():
            out: Tensor = self.layer(x)
        return out


@pytest.mark.parametrize("how", [torch.no_grad, torch.inference_mode])
def test_a_layout_of_a_network_without_gradients_is_refused_in_one_sentence(how: Any) -> None:
    with pytest.raises(TaskError, match="the outputs are detached from the parameters"):
        verified_space(_task(_Detached(how)))


def _stop_at(monkeypatch: pytest.MonkeyPatch, chapter: str, before: Callable[[], None]) -> None:
    """Let the chapter end the audit, after ``before``."""

    plain = audit.make_chapter

    def ends(declared: Any, workspace: Any) -> Any:
        if declared.id != chapter:
            return plain(declared, workspace)
        before()
        raise KeyboardInterrupt

    monkeypatch.setattr(audit, "make_chapter", ends)


def _watched(monkeypatch: pytest.MonkeyPatch, after: Callable[[int, Any], None]) -> list[set[str]]:
    """What was refuted at the end of each reading; ``after`` is told its number and the space."""
    seen: list[set[str]] = []
    plain = audit.read

    def read(*given: Any) -> Any:
        found = plain(*given)
        seen.append(set(given[0].space.refuted))
        after(len(seen), given[0].space)
        return found

    monkeypatch.setattr(audit, "read", read)
    return seen


def test_a_resumed_audit_reads_anew_what_it_refutes(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The stages that an interrupted run left were read by passes too."""
    key, settings = {"k": 1}, memspace.Settings(representation="dual")
    with monkeypatch.context() as m:
        _stop_at(m, "robustness", lambda: None)
        with pytest.raises(KeyboardInterrupt):
            audit.audit_task(_task(nn.Sequential(nn.Linear(4, 3))), settings, Store(tmp_path, key))
    task, store = _task(nn.Sequential(nn.Linear(4, 3))), Store(tmp_path, key)
    assert store.resumed
    assert store.has("rows")

    def refutes(count: int, space: Any) -> None:
        if count == 1:
            overruled(task, space, RefutedError({"0"}), task.train.batch([0, 1]))
            assert space.late

    seen = _watched(monkeypatch, refutes)
    found = audit.audit_task(task, settings, store)
    assert seen == [set(), {"0"}]
    assert "differentiated example by example: 0" in found.facts["parameters read"]


def test_a_resumed_audit_knows_what_was_refuted_and_reads_nothing_twice(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    key, settings = {"k": 1}, memspace.Settings(representation="dual")

    def net() -> Task:
        trained: list[int] = []

        def refit(index: Tensor, seed: int) -> nn.Module:
            trained.append(seed)
            torch.manual_seed(seed)
            return nn.Sequential(nn.Linear(4, 3))

        task = _task(nn.Sequential(nn.Linear(4, 3)))
        task = Task(task.model, task.train, refit=refit)
        object.__setattr__(task, "description", {"trained": trained})
        return task

    first = net()
    with monkeypatch.context() as m:
        seen = _watched(
            m, lambda n, s: overruled(first, s, RefutedError({"0"}), first.train.batch([0, 1])) if n == 1 else None
        )
        _stop_at_second(m)
        with pytest.raises(KeyboardInterrupt):
            audit.audit_task(first, settings, Store(tmp_path, key))
        assert seen == [set(), {"0"}]
    trained = len(first.description["trained"])
    assert trained
    assert len(set(first.description["trained"])) == trained  # read anew, and not trained anew
    second, store = net(), Store(tmp_path, key)
    seen = _watched(monkeypatch, lambda _n, s: None)
    passes, plain = [], exact.run_pass

    def counted(*given: Any) -> None:
        if given[3].what in ("Jacobian rows", "Fisher diagonal"):  # of the reading; measures may read on their own
            passes.append(len(given[3].index))
        plain(*given)

    for module in (exact, keep):
        monkeypatch.setattr(module, "run_pass", counted)
    audit.audit_task(second, settings, store)
    assert seen == [{"0"}]
    assert passes == [12]  # of the explained predictions, which are not kept
    assert not second.description["trained"]


def _stop_at_second(monkeypatch: pytest.MonkeyPatch) -> None:
    calls, plain = [], audit.make_chapter

    def ends(declared: Any, workspace: Any) -> Any:
        calls.append(declared.id)
        if declared.id == "robustness" and calls.count("robustness") == 2:
            raise KeyboardInterrupt
        return plain(declared, workspace)

    monkeypatch.setattr(audit, "make_chapter", ends)
