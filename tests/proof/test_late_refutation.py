"""What a pass refutes after others had read the same is read anew; a network without gradients is one sentence."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

import memspace
from memspace.audit import audit
from memspace.errors import TaskError
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
        seen.append(set(given[1].refuted))
        if len(seen) == 1:  # a module turns out to be wrong after the first pass had ended
            overruled(task, given[1], RefutedError({"0"}), task.train.batch([0, 1]))
        return found

    monkeypatch.setattr(audit, "read", read)
    found = memspace.audit(task)
    assert seen == [set(), {"0"}]
    assert "the generic way: 0" in found.facts["parameters read"]


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
