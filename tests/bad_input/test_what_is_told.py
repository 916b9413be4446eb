"""What is told besides model and data: names, true labels, show, refit; and calls with the wrong things."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import memspace
from memspace.errors import LabelError, MemspaceError, NonFiniteError, ShapeError, TaskError
from memspace.task.checks import check_task
from memspace.task.task import Task

N, D, C = 12, 4, 3


def _task(model: nn.Module | None = None, **told: Any) -> Task:
    return Task(model or nn.Linear(D, C), (torch.randn(N, D), torch.arange(N) % C), **told)


def _not_finite() -> nn.Module:
    model = nn.Linear(D, C)
    nn.init.constant_(model.bias, math.nan)
    return model


@pytest.mark.parametrize(
    ("told", "kind", "words"),
    [
        ({"class_names": ("a", "b")}, TaskError, "2 class names are given for 3 outputs"),
        ({"true_labels": torch.zeros(5)}, LabelError, "5 true labels are given for 12"),
        ({"show": lambda x: 1 // 0}, TaskError, "show fails on the first training example (ZeroDivisionError"),
        ({"show": lambda x: None}, TaskError, "show returns NoneType"),
    ],
    ids=["names", "true labels", "show fails", "show gives nothing"],
)
def test_what_does_not_fit_is_named(refused: Any, told: dict[str, Any], kind: type[MemspaceError], words: str) -> None:
    with refused(kind, words):
        check_task(_task(**told))


def test_a_show_that_fails_for_one_example_does_not_end_a_report() -> None:
    task = _task(show=lambda x: "fine" if bool(torch.equal(x, first)) else str(1 // 0))
    first = task.train.batch([0]).x[0]
    check_task(task)
    assert task.show is not None
    assert task.show(first) == "fine"
    assert "ZeroDivisionError" in task.show(first + 1)


@pytest.mark.parametrize(
    ("refit", "kind", "words"),
    [
        (lambda i, s: 1 // 0, TaskError, "refit fails (ZeroDivisionError"),
        (lambda i, s: None, TaskError, "refit returns NoneType"),
        (lambda i, s: _not_finite(), NonFiniteError, "NaN or infinite, first bias"),
        (lambda i, s: nn.Linear(D, 7), ShapeError, "outputs of shape (7,)"),
    ],
    ids=["raises", "none", "nan", "other outputs"],
)
def test_a_refit_gives_a_network_or_one_sentence(
    refused: Any, refit: Callable[[Tensor, int], Any], kind: type[MemspaceError], words: str
) -> None:
    task = _task(refit=refit)
    assert task.refit is not None
    with refused(kind, words, "refit(5 examples, seed 3)"):
        task.refit(torch.arange(5), 3)


class Squeezing(nn.Linear):
    def forward(self, input: Tensor) -> Tensor:
        return super().forward(input).squeeze()


class Several(nn.Linear):
    def forward(self, input: Tensor) -> Tensor:
        if len(input) < 2:
            raise ValueError("two at least")
        return super().forward(input)


class Detached(nn.Linear):
    def forward(self, input: Tensor) -> Tensor:
        return super().forward(input).detach()


class NoGrad(nn.Linear):
    @torch.no_grad()
    def forward(self, input: Tensor) -> Tensor:
        return super().forward(input)


class Inference(nn.Linear):
    def forward(self, input: Tensor) -> Tensor:
        with torch.inference_mode():
            return super().forward(input)


@pytest.mark.parametrize(
    ("model", "kind", "words"),
    [
        (Squeezing, ShapeError, "shape (3,) for a batch of one"),
        (Several, ShapeError, "refuses a batch of one example: ValueError: two at least"),
        (Detached, TaskError, "detached"),
        (NoGrad, TaskError, "detached"),
        (Inference, TaskError, "detached"),
    ],
    ids=lambda v: getattr(v, "__name__", None),
)
def test_models_that_cannot_be_read(
    refused: Any, model: Callable[[int, int], nn.Module], kind: type[MemspaceError], words: str
) -> None:
    with refused(kind, words):
        check_task(_task(model(D, C)))


def test_weights_without_numbers_and_of_inference_mode(refused: Any) -> None:
    with refused(TaskError, "meta device", "weight"):
        check_task(_task(nn.Linear(D, C, device="meta")))
    with torch.inference_mode():
        model = nn.Linear(D, C)
    with refused(TaskError, "inference mode", "weight"):
        check_task(_task(model))
    task = _task()
    with torch.inference_mode(), refused(TaskError, "outside of it"):
        check_task(task)


def test_calls_with_the_wrong_things(refused: Any) -> None:
    data = (torch.randn(N, D), torch.arange(N) % C)
    with refused(TaskError, "no training data"):
        memspace.audit(nn.Linear(D, C))
    with refused(TaskError, "a tuple is neither"):
        memspace.audit(data, nn.Linear(D, C))  # type: ignore[arg-type]
    with refused(TaskError, "a Task is given and data"):
        memspace.audit(_task(), data)


def test_extra_state_is_no_weight() -> None:
    class Versioned(nn.Linear):
        def get_extra_state(self) -> Any:
            return {"version": 2}

        def set_extra_state(self, state: Any) -> None:
            pass

    results = memspace.audit(_task(Versioned(D, C)))
    assert results.measurement("fisher.trace").value > 0
