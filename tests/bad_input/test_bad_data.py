"""Data and labels that cannot be audited."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, TensorDataset

from memspace.errors import DataError, LabelError, NonFiniteError, ShapeError
from memspace.task.checks import check_task
from memspace.task.data import Data
from memspace.task.likelihood import Bernoulli, Categorical, Gaussian, Likelihood, Poisson
from memspace.task.task import Task

N, C = 10, 3


def _task(x: Tensor, y: Tensor, law: Likelihood | None = None, test: Any = None) -> Task:
    return Task(nn.Linear(4, C), Data((x, y)), law or Categorical(), test=test)


@pytest.mark.parametrize(
    "source",
    [
        (torch.zeros(0, 4), torch.zeros(0, dtype=torch.long)),
        TensorDataset(torch.zeros(0, 4), torch.zeros(0)),
        [],
        iter([]),
    ],
    ids=["pair", "dataset", "list", "iterator"],
)
def test_empty_data(refused: Any, source: Any) -> None:
    with refused(DataError, "training data", "no "):
        Data(source, "training data")


@pytest.mark.parametrize("source", [7, None, nn.Linear(1, 1)], ids=["int", "none", "module"])
def test_what_is_no_data(refused: Any, source: Any) -> None:
    with refused(DataError, type(source).__name__):
        Data(source, "training data")


def test_items_that_are_no_pairs(refused: Any) -> None:
    with refused(DataError, "pairs"):
        Data(TensorDataset(torch.zeros(5, 4)), "training data").batch([0, 1])
    with refused(DataError, "(input, label)"):
        Data((torch.zeros(5, 4) for _ in range(2)), "training data")


def test_items_of_different_shape(refused: Any) -> None:
    items = [(torch.zeros(3), 0), (torch.zeros(4), 1), (torch.zeros(3), 1)]
    data = Data(DataLoader(items, batch_size=2), "training data")  # type: ignore[arg-type]
    with refused(DataError, "example 0 is of shape (3,)", "example 1 of shape (4,)", "one shape"):
        data.batch([0, 1, 2])


_LABELS: list[tuple[Likelihood, Callable[[], Tensor], str]] = [
    (Categorical(), lambda: torch.tensor([0, 1, 2, 3, 0, 1, 2, 3, 0, 1]), "2 labels lie outside 0..2"),
    (Categorical(), lambda: torch.tensor([-1] + [0] * 9), "1 labels lie outside 0..2"),
    (Categorical(), lambda: torch.full((N,), 0.5), "float32"),
    (Categorical(), lambda: torch.zeros(N, dtype=torch.bool), "bool"),
    (Categorical(), lambda: torch.zeros(N, C, dtype=torch.long), "shape (10, 3)"),
    (Bernoulli(), lambda: torch.full((N, C), 1.5), "30 labels lie outside [0, 1]"),
    (Bernoulli(), lambda: torch.full((N, C), -0.1), "30 labels lie outside [0, 1]"),
    (Bernoulli(), lambda: torch.full((N, C), math.nan), "30 labels lie outside [0, 1]"),
    (Bernoulli(), lambda: torch.zeros(N), "shape (10,)"),
    (Gaussian(), lambda: torch.zeros(N, C, dtype=torch.complex64), "complex64"),
    (Gaussian(), lambda: torch.zeros(N, 1), "shape (10, 1)"),
    (Gaussian(), lambda: torch.full((N, C), math.nan), "30 labels are NaN or infinite"),
    (Gaussian(), lambda: torch.full((N, C), math.inf), "30 labels are NaN or infinite"),
    (Poisson(), lambda: torch.full((N, C), -1.0), "30 labels are negative"),
    (Poisson(), lambda: torch.full((N, C), 0.5), "not whole"),
    (Poisson(), lambda: torch.full((N, C), math.nan), "not whole"),
    (Poisson(), lambda: torch.full((N, C), math.inf), "not whole"),
    (Poisson(), lambda: torch.zeros(N), "shape (10,)"),
]


@pytest.mark.parametrize(("law", "labels", "words"), _LABELS, ids=lambda v: getattr(v, "name", None))
def test_labels_that_do_not_fit_the_law(
    refused: Any, law: Likelihood, labels: Callable[[], Tensor], words: str
) -> None:
    with refused(LabelError, words, "training data", "examples 0..9"):
        check_task(_task(torch.randn(N, 4), labels(), law))


def test_bad_test_labels_are_called_test_labels(refused: Any) -> None:
    x = torch.randn(N, 4)
    good, bad = torch.zeros(N, dtype=torch.long), torch.full((N,), 9)
    with refused(LabelError, "test data", "largest 9"):
        check_task(_task(x, good, test=(x, bad)))


@pytest.mark.parametrize(
    ("law", "y"),
    [
        (Categorical(), torch.arange(N) % C),
        (Categorical(), (torch.arange(N) % C).to(torch.uint8)),
        (Categorical(), (torch.arange(N) % C).to(torch.int32)),
        (Bernoulli(), torch.rand(N, C)),
        (Bernoulli(), torch.ones(N, C, dtype=torch.long)),
        (Gaussian(), torch.randn(N, C, dtype=torch.float64)),
        (Poisson(), torch.full((N, C), 7)),
    ],
    ids=["classes", "uint8", "int32", "shares", "whole shares", "floats", "counts"],
)
def test_good_labels_pass(law: Likelihood, y: Tensor) -> None:
    task = _task(torch.randn(N, 4), y, law)
    check_task(task)
    part = task.train.batch(range(N))
    assert bool(torch.isfinite(law.nll(task.model(part.x).detach(), part.y)).all())


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_inputs_that_are_not_finite_are_counted_and_the_first_is_named(refused: Any, value: float) -> None:
    x = torch.randn(N, 4)
    x[6, 1] = x[8, 0] = x[8, 2] = value
    with refused(NonFiniteError, "2 of 10 inputs", "training data", "first at example 6"):
        check_task(_task(x, torch.zeros(N, dtype=torch.long)))


def test_inputs_that_are_not_finite_far_into_the_test_data(refused: Any) -> None:
    x, y = torch.randn(5000, 4), torch.zeros(5000, dtype=torch.long)
    broken = x.clone()
    broken[4321] = math.nan
    with refused(NonFiniteError, "test data", "first at example 4321"):
        check_task(_task(x, y, test=(broken, y)))


def test_one_of_several_inputs_is_not_finite(refused: Any) -> None:
    class Sum(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear = nn.Linear(4, C)

        def forward(self, a: Tensor, b: Tensor) -> Tensor:
            return self.linear(a + b)

    a, b, y = torch.randn(N, 4), torch.randn(N, 4), torch.zeros(N, dtype=torch.long)
    check_task(Task(Sum(), Data(((a, b), y))))
    check_task(Task(Sum(), Data(({"b": b, "a": a}, y))))
    b = b.clone()
    b[7, 0] = math.nan
    for x in ((a, b), {"b": b, "a": a}):
        with refused(NonFiniteError, "first at example 7"):
            check_task(Task(Sum(), Data((x, y))))


def test_random_augmentation(refused: Any) -> None:
    class Augmented(Dataset[tuple[Tensor, int]]):
        def __len__(self) -> int:
            return N

        def __getitem__(self, i: int) -> tuple[Tensor, int]:
            return torch.ones(4) + 0.1 * torch.randn(4), i % C

    with refused(DataError, "training data", "augmentation"):
        check_task(Task(nn.Linear(4, C), Data(Augmented())))


@pytest.mark.parametrize("x", [torch.randn(N, 5), torch.randn(N, 4, 4, 4, 5), torch.ones(N, 4, dtype=torch.long)])
def test_inputs_the_model_refuses(refused: Any, x: Tensor) -> None:
    with refused(ShapeError, f"shape {tuple(x[:4].shape)}", "training data"):
        check_task(_task(x, torch.zeros(N, dtype=torch.long)))


@pytest.mark.parametrize("error", [AssertionError("3 channels,\nplease"), KeyError("mask"), AttributeError()])
def test_whatever_the_model_raises_at_its_input(refused: Any, error: Exception) -> None:
    class Picky(nn.Linear):
        def forward(self, input: Tensor) -> Tensor:
            raise error

    with refused(ShapeError, "shape (4, 4)"):
        check_task(Task(Picky(4, C), Data((torch.randn(N, 4), torch.zeros(N, dtype=torch.long)))))


def test_token_numbers_beyond_the_vocabulary(refused: Any) -> None:
    model = nn.Sequential(nn.Embedding(5, 4), nn.Flatten(), nn.Linear(8, C))
    with refused(ShapeError, "index out of range"):
        check_task(Task(model, Data((torch.full((N, 2), 5), torch.zeros(N, dtype=torch.long)))))
