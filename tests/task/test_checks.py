"""Checking a task: it sees all data, any dependence on the batch, and leaves nothing changed."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import Dataset

from memspace.errors import DataError, LabelError, NonFiniteError, StochasticModelError
from memspace.task.checks import check_task, holding, untouched
from memspace.task.data import Data
from memspace.task.task import Task

N, C = 5000, 3


def _data(x: Tensor | None = None) -> Data:
    return Data((torch.randn(N, 4) if x is None else x, torch.arange(N) % C))


class Noise(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x + torch.randn_like(x)


class Augmented(Dataset[tuple[Tensor, int]]):
    def __len__(self) -> int:
        return 8

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        return torch.randn(4), index % C


def _noisy() -> Task:
    return Task(nn.Sequential(nn.Linear(4, C), Noise()), _data())


def _augmented() -> Task:
    return Task(nn.Linear(4, C), Augmented())


@pytest.mark.parametrize(
    ("make", "kind"), [(_noisy, StochasticModelError), (_augmented, DataError)], ids=["model", "data"]
)
def test_a_refusal_leaves_the_random_state_alone(make: Callable[[], Task], kind: type[Exception]) -> None:
    task, state = make(), torch.get_rng_state()
    with pytest.raises(kind):
        check_task(task)
    assert torch.equal(torch.get_rng_state(), state)
    assert not any(m._forward_hooks for m in task.model.modules())


def test_damaged_inputs_are_counted_over_all_data() -> None:
    x = torch.randn(N, 4)
    x[3000:3002] = torch.nan
    x[4999, 1] = torch.inf
    with pytest.raises(NonFiniteError, match=r"3 of 5,000 inputs .* first at example 3000\)"):
        check_task(Task(nn.Linear(4, C), _data(x)))


def test_inputs_that_are_single_numbers() -> None:
    class Wide(nn.Linear):
        def forward(self, input: Tensor) -> Tensor:
            return super().forward(input.unsqueeze(-1))

    x = torch.randn(9)
    check_task(Task(Wide(1, C), (x, torch.arange(9) % C)))
    x[4] = torch.nan
    with pytest.raises(NonFiniteError, match="1 of 9 inputs"):
        check_task(Task(Wide(1, C), (x, torch.arange(9) % C)))


def test_the_last_label_is_checked_too() -> None:
    y = torch.arange(N) % C
    y[-1] = C
    with pytest.raises(LabelError, match=r"test data, examples \d+\.\.4999"):
        check_task(Task(nn.Linear(4, C), _data(), test=(torch.randn(N, 4), y)))


def test_outputs_that_depend_on_the_batch_are_refused() -> None:
    net = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8, track_running_stats=False), nn.Linear(8, C))
    with pytest.raises(StochasticModelError, match="depends on its batch"):
        check_task(Task(net, _data()))


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16], ids=str)
def test_rounding_is_no_dependence_on_the_batch(dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(4, 512), nn.ReLU(), nn.Linear(512, 512), nn.ReLU(), nn.Linear(512, C)).to(dtype)
    check_task(Task(net, _data(1000 * torch.randn(N, 4))))


@pytest.mark.parametrize("n", [1, 2, 3, 5])
def test_few_examples_are_enough(n: int) -> None:
    check_task(
        Task(
            nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.Linear(8, C)),
            (torch.randn(n, 4), torch.zeros(n).long()),
        )
    )


def test_frozen_parameters_come_back_frozen() -> None:
    model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, C))
    model[0].requires_grad_(False)
    with untouched(model):
        model.requires_grad_(True)
        model[1].requires_grad_(False)
    assert [p.requires_grad for p in model.parameters()] == [False, False, True, True]


def test_held_weights_and_buffers_are_put_back_also_after_an_exception() -> None:
    model = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4), nn.Linear(4, C)).eval()
    model[2].weight.requires_grad_(False)
    before = {n: (t, t.data_ptr(), t.detach().clone()) for n, t in model.state_dict(keep_vars=True).items()}
    state = {n: t + 1 for n, t in model.state_dict().items()}
    other = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4), nn.Linear(4, C)).eval()
    other.load_state_dict(state)
    x = torch.randn(5, 4)

    def leave() -> None:
        with holding(model, state):
            assert torch.equal(model(x), other(x))
            assert not model[2].weight.requires_grad
            raise InterruptedError

    def lacking() -> None:
        with holding(model, {n: t for n, t in state.items() if n != "1.running_var"}):
            pytest.fail("held without a buffer")

    for act, error in ((leave, InterruptedError), (lacking, KeyError)):
        with pytest.raises(error):
            act()
        for n, t in model.state_dict(keep_vars=True).items():
            same, at, value = before[n]
            assert t is same
            assert t.data_ptr() == at
            assert torch.equal(t, value)
