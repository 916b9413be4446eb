"""A check that fails costs no finished work."""

import pytest
import torch
from torch import nn

import memspace
from memspace.influence.engines import Engine
from memspace.measurement import Unmeasured


def test_scores_outlive_a_residual_that_cannot_be_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 3)).eval()
    task = memspace.Task(model=model, train=(torch.randn(80, 6), torch.randint(0, 3, (80,))))
    want = memspace.influence(task, [0, 1], engine="ekfac", damping=0.1).scores

    def fail(*_: object) -> None:
        raise RuntimeError("no derivative of a derivative")

    monkeypatch.setattr(Engine, "residual", fail)
    found = memspace.influence(task, [0, 1], engine="ekfac", damping=0.1)
    assert torch.equal(found.scores, want)
    absent = found.diagnostics[0]
    assert isinstance(absent, Unmeasured)
    assert "no derivative" in absent.reason
