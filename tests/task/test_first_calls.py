"""Checks that share calls of a plain network find what each would find by itself."""

from __future__ import annotations

import random
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import memspace
from memspace.errors import MemspaceError, NonFiniteError, ShapeError, StochasticModelError, TaskError
from memspace.passes.profile import profile_of
from memspace.passes.verify import checked_space
from memspace.task.checks import check_task
from memspace.task.first_calls import first_calls_of

N, D, C = 40, 5, 3
SMALL = 1e-4  # far below what is accused where two batches are compared: only a repetition shows it


class _Network(nn.Module):
    """A two-layer network around whose outputs something is done."""

    def __init__(self, change: Callable[[_Network, Tensor, Tensor], Tensor] | None = None) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first, self.last, self.change = nn.Linear(D, 7), nn.Linear(7, C), change
        self.calls, self.seen = 0, [0]

    def forward(self, x: Tensor) -> Tensor:
        f: Tensor = self.last(torch.tanh(self.first(x)))
        return f if self.change is None else self.change(self, x, f)


def _data(n: int = N, seed: int = 0) -> tuple[Tensor, Tensor]:
    x = torch.randn(n, D, generator=torch.Generator().manual_seed(seed))
    return x, torch.arange(n) % C


def _counting(m: _Network, _: Tensor, f: Tensor) -> Tensor:
    m.calls += 1
    return f + SMALL * m.calls


def _listing(m: _Network, _: Tensor, f: Tensor) -> Tensor:
    m.seen.append(0)
    return f + SMALL * len(m.seen)


def _one_only(_: _Network, x: Tensor, f: Tensor) -> Tensor:
    if len(x) == 1:
        raise ValueError("too few")
    return f


def _positive(_: _Network, x: Tensor, f: Tensor) -> Tensor:
    assert bool((x < 50).all()), "too large"
    return f


FAULTS: dict[str, tuple[Callable[[_Network, Tensor, Tensor], Tensor], type[MemspaceError], str]] = {
    "torch's draws": (lambda m, x, f: f + SMALL * torch.randn(()), StochasticModelError, "two forward passes"),
    "NumPy's draws": (lambda m, x, f: f + SMALL * np.random.rand(), StochasticModelError, "two forward passes"),  # noqa: NPY002
    "Python's draws": (lambda m, x, f: f + SMALL * random.random(), StochasticModelError, "two forward passes"),
    "a counter": (_counting, StochasticModelError, "two forward passes"),
    "a growing list": (_listing, StochasticModelError, "two forward passes"),
    "batch statistics": (lambda m, x, f: f - f.mean(0), StochasticModelError, "depends on its batch"),
    "earlier examples": (lambda m, x, f: f + f.cumsum(0).roll(1, 0), StochasticModelError, "batch"),
    "no single example": (_one_only, ShapeError, "a batch of one example"),
    "squeezed": (lambda m, x, f: f.squeeze(0), ShapeError, "a batch of one example"),
    "detached": (lambda m, x, f: f.detach(), TaskError, "detached"),
    "infinite": (lambda m, x, f: f / (x[:, :1] * 0), NonFiniteError, "outputs are NaN or infinite"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_is_named_as_by_single_checks(fault: str) -> None:
    change, kind, words = FAULTS[fault]
    task = memspace.Task(_Network(change), _data())
    with pytest.raises(kind, match=words):
        checked_space(task)
    with pytest.raises(kind, match=words):
        check_task(task)


def test_test_data_that_the_network_refuses_are_named() -> None:
    x, y = _data(10, 1)
    task = memspace.Task(_Network(_positive), _data(), test=memspace.Data((x + 100, y)))
    assert first_calls_of(task) is None
    with pytest.raises(ShapeError, match=r"too large.*test data|test data.*too large"):
        check_task(task)


def test_outputs_that_differ_without_gradients_are_told() -> None:
    task = memspace.Task(_Network(lambda m, x, f: f if torch.is_grad_enabled() else f + 0.5), _data())
    assert "other outputs" in task.description["outputs without gradients"]


def test_weights_changed_after_the_task_was_made_are_checked_anew() -> None:
    model = _Network()
    task = memspace.Task(model, _data())
    before = profile_of(task)
    model.last.weight.data.fill_(float("inf"))
    with pytest.raises(NonFiniteError, match="weights"):
        checked_space(task)
    model.last.weight.data.normal_()
    space = checked_space(task)
    assert space.verified
    assert profile_of(task) is before


def test_a_plain_network_is_laid_out_as_step_by_step() -> None:
    task = memspace.Task(_Network(), _data(), test=_data(9, 1))
    assert first_calls_of(task) is not None
    together, apart = checked_space(task), memspace.verified_space(task)
    assert [(b.names, b.shape, b.start) for b in together.blocks] == [(b.names, b.shape, b.start) for b in apart.blocks]
    assert together.verified
    assert apart.verified
    assert together.axes == apart.axes == {}


def test_a_weight_used_outside_its_layer_is_found() -> None:
    def again(m: _Network, _: Tensor, f: Tensor) -> Tensor:
        return f + torch.nn.functional.linear(f, m.last.weight[:, :C])

    space = checked_space(memspace.Task(_Network(again), _data()))
    assert "last" in space.loose


@pytest.mark.parametrize("many", [1, 2, 6])
def test_few_examples_are_enough(many: int) -> None:
    assert checked_space(memspace.Task(_Network(), _data(many))).verified


def test_a_profile_is_of_one_example_and_of_the_architecture() -> None:
    task = memspace.Task(_Network(), _data())
    profile = profile_of(task)
    names = [c.name for c in profile.calls]
    assert names == ["first", "last", ""]
    assert [c.first for c in profile.calls] == [(1, D), (1, 7), (1, D)]
    assert [c.learned for c in profile.calls] == [False, True, False]
    assert (profile.shape, profile.plain, profile.positions) == ((C,), True, 1)
    assert profile.activations == 7 + C + C
    assert profile.widest == 7  # of tanh and of the last layer's input
    assert profile.bilinear(task.model)
    task.model.first.requires_grad_(False)
    assert not profile_of(task).bilinear(task.model)  # looked up by what is trained, too


@pytest.mark.parametrize("attends", [False, True])
def test_no_random_state_is_moved(attends: bool) -> None:
    draws = _Network(lambda m, x, f: f + np.random.rand() + random.random() + torch.rand(()))  # noqa: NPY002
    draws.attention = nn.MultiheadAttention(4, 2) if attends else nn.Identity()
    for seed in (np.random.seed, random.seed, torch.manual_seed):
        seed(3)
    memspace.Task(draws, _data())
    found = [np.random.rand(), random.random(), torch.rand(())]  # noqa: NPY002
    for seed in (np.random.seed, random.seed, torch.manual_seed):
        seed(3)
    assert found == [np.random.rand(), random.random(), torch.rand(())]  # noqa: NPY002
