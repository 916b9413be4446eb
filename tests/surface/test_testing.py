"""``memspace.testing``: every contract is there, holds what memspace brings, and refuses what is wrong."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import dataclass

import pytest
import torch
from torch import nn

import memspace
from memspace import testing
from memspace.measures.complexity import information
from memspace.measures.declaration import measure
from memspace.measures.values import TrainingOutputs
from memspace.metric.spectral import Dense
from memspace.passes.layers import registry
from memspace.passes.layers.formed import FormedRule
from memspace.value import Value

F = torch.randn(6, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


@dataclass(frozen=True)
class Wrong(memspace.Gaussian):
    """A Gaussian whose residual is a thousandth too large."""

    def residual(self, f: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return 1.001 * super().residual(f, y)


class Shifted(nn.Module):
    """x ↦ x + shift."""

    def __init__(self) -> None:
        super().__init__()
        self.shift = nn.Parameter(torch.zeros(3))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.shift


class WrongRule(FormedRule):
    """Its gradient is a thousandth too large."""

    name = "shifted"
    types = (Shifted,)
    parameters = ("shift",)

    def gradient(self, block, call) -> torch.Tensor:
        return 1.001 * call.cotangent


def broken_metric() -> Dense:
    """A metric whose eigenvalues are not those of its matrix."""
    root = torch.randn(4, 4, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    return Dense.of(root @ root.T, "exact")


def tiny_task() -> memspace.Task:
    return memspace.Task(model=nn.Linear(3, 2).double(), train=(F, torch.tensor([0, 1, 0, 1, 1, 0])))


@measure("test.surface.unseeded", chapter="nowhere", unit="1", estimator="chance")
def unseeded(training: TrainingOutputs) -> Value:
    """Another number every time."""
    return Value(float(torch.rand(())), training.n)


# contract: a call that it lets through, and one that it refuses
CALLS = {
    "check_measure": (
        lambda: testing.check_measure(information, tiny_task()),
        lambda: testing.check_measure(unseeded, tiny_task()),
    ),
    "check_law": (lambda: testing.check_law(memspace.Gaussian(0.5), F), lambda: testing.check_law(Wrong(0.5), F)),
    "check_layer": (
        lambda: testing.check_layer(nn.Linear(3, 2), torch.randn(4, 3)),
        lambda: testing.check_layer(Shifted(), torch.randn(4, 3)),
    ),
    "check_metric": (
        lambda: testing.check_metric(broken_metric()),
        lambda: testing.check_metric(broken_metric(), 1.001 * broken_metric().to_dense()),
    ),
}


@pytest.fixture
def wrong_rule(monkeypatch: pytest.MonkeyPatch) -> None:
    """A wrong rule of a layer, known for one test."""
    for name, value in vars(registry).items():
        if isinstance(value, list | dict):
            monkeypatch.setattr(registry, name, value.copy())
    registry.register_layer(WrongRule)


def test_every_contract_is_tried_here() -> None:
    assert set(testing.__all__) <= {*CALLS, "check_measure"}
    assert all(callable(getattr(testing, name)) for name in testing.__all__)
    assert set(testing.__all__) <= set(dir(testing))
    with pytest.raises(AttributeError, match="check_nothing"):
        _ = testing.check_nothing


@pytest.mark.parametrize("name", CALLS)
def test_a_contract_holds_what_is_right_and_refuses_what_is_wrong(name: str, wrong_rule: None) -> None:
    right, wrong = CALLS[name]
    right()
    with pytest.raises(AssertionError) as said:
        wrong()
    assert str(said.value).count("\n") == 0


def test_importing_the_contracts_imports_no_torch() -> None:
    code = "import sys, memspace.testing; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
