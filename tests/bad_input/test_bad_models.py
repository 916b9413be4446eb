"""Models that cannot be audited, and models left as they were found."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from memspace.auditing.audit import audit_task
from memspace.auditing.plan import AuditSettings
from memspace.errors import NonFiniteError, ShapeError, StochasticModelError, TaskError
from memspace.task.checks import check_task, evaluating, untouched
from memspace.task.data import Data
from memspace.task.task import Task

N, C = 10, 3


def _task(model: nn.Module) -> Task:
    y = torch.arange(N) % C
    return Task(model, Data((torch.randn(N, 4), y)), test=Data((torch.randn(N, 4), y)))


def _net() -> nn.Sequential:
    return nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, C))


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_weights_that_are_not_finite_are_counted_and_named(refused: Any, value: float) -> None:
    model = _net()
    with torch.no_grad():
        model[3].weight[1, 2] = value
        model[3].weight[0, 0] = value
    with refused(NonFiniteError, "2 of 24 weights", "3.weight"):
        check_task(_task(model))


def test_buffers_that_are_not_finite_are_named(refused: Any) -> None:
    model = _net()
    model[1].running_var[3] = math.nan
    with refused(NonFiniteError, "1 of 8", "1.running_var"):
        check_task(_task(model))


def test_outputs_that_are_not_finite(refused: Any) -> None:
    class Log(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return torch.log(x - 1e9)

    with refused(NonFiniteError, "of 12 outputs", "training data"):
        check_task(_task(nn.Sequential(nn.Linear(4, C), Log())))


def test_a_model_without_trainable_parameters(refused: Any) -> None:
    for model, remedy in ((_net().requires_grad_(False), "requires_grad"), (nn.Sequential(nn.ReLU()), "has weights")):
        with refused(TaskError, "Sequential", remedy):
            check_task(_task(model))


class Noise(nn.Module):
    """Noise in training and in eval mode."""

    def forward(self, x: Tensor) -> Tensor:
        return x + torch.randn_like(x)


class Careless(nn.Module):
    """Functional dropout that does not ask for the mode."""

    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.dropout(x, 0.5)


@pytest.mark.parametrize("culprit", [Noise(), Careless()], ids=["noise", "dropout"])
def test_a_random_forward_names_the_module(refused: Any, culprit: nn.Module) -> None:
    inner = nn.Sequential(nn.Linear(4, 16), culprit)
    with refused(StochasticModelError, "module 0.1", "deterministic"):
        check_task(_task(nn.Sequential(inner, nn.Linear(16, C))))


def test_a_random_forward_of_the_model_itself_names_its_class(refused: Any) -> None:
    class Rough(nn.Linear):
        def forward(self, input: Tensor) -> Tensor:
            return super().forward(input) + torch.rand(1)

    with refused(StochasticModelError, "Rough"):
        check_task(_task(Rough(4, C)))


@pytest.mark.parametrize(
    "layer", [nn.Dropout(0.5), nn.AlphaDropout(0.1), nn.Sequential(nn.ReLU(), nn.Dropout1d(0.2))], ids=str
)
def test_a_model_in_training_mode_with_dropout_is_refused(refused: Any, layer: nn.Module) -> None:
    model = nn.Sequential(nn.Linear(4, 8), layer, nn.Linear(8, C)).train()
    with refused(StochasticModelError, "module 1", "model.eval()"):
        check_task(_task(model))
    with refused(StochasticModelError, "module 1", "model.eval()"):
        audit_task(_task(model), AuditSettings())
    assert all(m.training for m in model.modules())
    check_task(_task(model.eval()))


def test_layers_in_training_mode_are_read_in_eval_mode_and_left_in_training_mode() -> None:
    model = nn.Sequential(nn.Linear(4, 8), nn.Dropout(0.0), nn.BatchNorm1d(8), nn.Linear(8, C)).train()
    model[0].eval()
    modes = [m.training for m in model.modules()]
    state = {k: v.clone() for k, v in model.state_dict().items()}
    check_task(_task(model))
    assert [m.training for m in model.modules()] == modes
    assert all(torch.equal(v, state[k]) for k, v in model.state_dict().items())
    assert not any(m._forward_hooks for m in model.modules())


def test_modes_gradients_and_random_state_come_back_after_an_exception() -> None:
    model = nn.Sequential(nn.Linear(4, 4), nn.Dropout()).train()
    model[0].weight.grad = torch.ones(4, 4)
    random = torch.get_rng_state()

    def fail() -> None:
        with untouched(model):
            assert not model[1].training
            model[0].weight.grad = None
            torch.rand(3)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert model.training
    assert model[1].training
    assert torch.equal(model[0].weight.grad, torch.ones(4, 4))
    assert torch.equal(random, torch.get_rng_state())
    with evaluating(model) as inside:
        assert not any(m.training for m in inside.modules())
    assert model.training


class Odd(nn.Linear):
    """Gives something that is not one row of outputs per example."""

    def __init__(self, kind: str) -> None:
        super().__init__(4, C)
        self.kind = kind

    def forward(self, input: Tensor) -> Any:
        f = super().forward(input)
        return {
            "flat": f[:, 0],
            "scalar": f.sum(),
            "tuple": (f, f),
            "dict": {"first": f, "second": f},
            "transposed": f.t(),
            "none": None,
        }[self.kind]


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        ("flat", "shape (4,)"),
        ("scalar", "shape ()"),
        ("tuple", "a tuple"),
        ("dict", "a dict"),
        ("transposed", "shape (3, 4)"),
        ("none", "a NoneType"),
    ],
)
def test_outputs_that_are_not_rows_per_example(refused: Any, kind: str, words: str) -> None:
    with refused(ShapeError, words, "Odd", "for 4 examples"):
        check_task(_task(Odd(kind)))
