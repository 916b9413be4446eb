"""Labels as people hold them: each kind means what it says, or is one sentence."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from memspace.errors import MemspaceError
from memspace.passes.outputs import outputs
from memspace.task.checks import check_task
from memspace.task.likelihood import Bernoulli, Gaussian, Likelihood, Poisson
from memspace.task.task import Task

N, D, C = 30, 5, 3
X = torch.randn(N, D, generator=torch.Generator().manual_seed(0))
Y = torch.arange(N) % C
TWO = torch.arange(N) % 2
REAL = X[:, 0].half().float()  # the same at every precision
WORDS = np.array(["cat", "dog", "eel"])[Y.numpy()]


def net(outputs: int = C) -> nn.Module:
    torch.manual_seed(1)
    return nn.Linear(D, outputs)


def loss(y: Any, outputs_: int = C, law: Likelihood | None = None) -> float:
    """Mean loss per label that counts, as memspace reads it."""
    task = Task(net(outputs_), (X, y)) if law is None else Task(net(outputs_), (X, y), law)
    check_task(task)
    f, read = outputs(task, task.train)
    return float(task.likelihood.nll(f.double(), read).sum() / task.likelihood.weight(f, read).double().sum())


CLASSES: dict[str, Any] = {
    "a pandas series of categories": pd.Series(pd.Categorical(WORDS)),
    "pandas categories": pd.Categorical(WORDS),
    "categories that are numbers": pd.Series(Y.numpy()).astype("category"),
    "pandas strings": pd.Series(WORDS, dtype="string"),
    "nullable integers": pd.Series(Y.numpy(), dtype="Int64"),
    "NumPy strings": WORDS,
    "strings as objects": WORDS.astype(object),
    "bytes": WORDS.astype("S3"),
    "numbers as objects": Y.numpy().astype(object),
    "a list of numbers": Y.tolist(),
    "a tuple of numbers": tuple(Y.tolist()),
    "a list of strings": WORDS.tolist(),
    "a list of tensors": list(Y),
    "a list of NumPy numbers": list(Y.numpy()),
    "a list of lists of one": [[int(k)] for k in Y],
    "digits as strings": [str(int(k)) for k in Y],
    "a table of one named column of strings": pd.DataFrame({"species": WORDS}),
    "a table of one named column of numbers": pd.DataFrame({"species": Y.numpy()}),
    "one-hot true and false": F.one_hot(Y, C).bool(),
    "axes of length one behind": Y[:, None, None],
    "whole numbers as floats": Y.half(),
    "a masked array without a mask": np.ma.array(Y.numpy()),
}


@pytest.mark.parametrize("kind", CLASSES)
def test_classes_of_every_kind_are_the_same_classes(kind: str) -> None:
    assert loss(CLASSES[kind]) == pytest.approx(F.cross_entropy(net()(X), Y).item(), rel=1e-6)


def test_digits_as_strings_come_in_the_order_of_the_numbers() -> None:
    y = torch.arange(N) % 12
    assert loss([str(int(k)) for k in y], 12) == pytest.approx(F.cross_entropy(net(12)(X), y).item(), rel=1e-6)


@pytest.mark.parametrize("only", [0, 1, 4])
def test_one_class_of_five_stays_that_class(only: int) -> None:
    y = torch.full((N,), only)
    assert loss(y, 5) == pytest.approx(F.cross_entropy(net(5)(X), y).item(), rel=1e-6)


@pytest.mark.parametrize("dtype", [torch.long, torch.float32])
def test_one_class_beside_examples_without_a_label(dtype: torch.dtype) -> None:
    y = torch.where(TWO > 0, 2, -100)
    assert loss(y.to(dtype)) == pytest.approx(F.cross_entropy(net()(X), y).item(), rel=1e-6)


NUMBERS: dict[str, Any] = {
    "float16": REAL.half(),
    "NumPy float16": REAL.half().numpy(),
    "axes of length one behind": REAL[:, None, None],
    "a table of one named column": pd.DataFrame({"price": REAL.numpy()}),
    "numbers as objects": REAL.numpy().astype(object),
    "a list of tensors": list(REAL),
    "with a gradient": REAL.clone().requires_grad_(),
}


@pytest.mark.parametrize("kind", NUMBERS)
def test_numbers_of_every_kind_are_the_same_targets(kind: str) -> None:
    want = -torch.distributions.Normal(net(1)(X)[:, 0], 1.0).log_prob(REAL).mean().item()
    assert loss(NUMBERS[kind], 1, Gaussian(1.0)) == pytest.approx(want, rel=1e-5)


@pytest.mark.parametrize("y", [TWO.bool(), TWO[:, None, None], TWO.half(), TWO.tolist()])
def test_yes_and_no_of_every_kind(y: Any) -> None:
    rate = net(1)(X)[:, 0]
    want = F.binary_cross_entropy_with_logits(rate, TWO.float()).item()
    assert loss(y, 1, Bernoulli()) == pytest.approx(want, rel=1e-5)
    counted = F.poisson_nll_loss(rate, TWO.float()).item()
    assert loss(y, 1, Poisson()) == pytest.approx(counted, rel=1e-5)


def _missing() -> Tensor:
    return torch.where(TWO > 0, Y.double(), torch.nan)


REFUSED: dict[str, tuple[Callable[[], Any], int, Likelihood | None, str]] = {
    "minus one and one": (lambda: 2 * TWO - 1, 2, None, "smallest -1, largest 1"),
    "minus one and one, binary": (lambda: (2 * TWO - 1).float(), 1, Bernoulli(), "15 labels lie outside"),
    "zero and two": (lambda: 2 * TWO, 2, None, "smallest 0, largest 2"),
    "one and two, binary": (lambda: 1 + TWO, 1, Bernoulli(), "recode the labels to 0 and 1"),
    "huge classes": (lambda: Y + 10**12, C, None, "largest 1000000000002"),
    "missing numbers": (_missing, C, None, "15 labels are missing"),
    "missing integers": (lambda: pd.Series([None, *Y.tolist()[1:]], dtype="Int64"), C, None, "are missing"),
    "None in a list": (lambda: [None, *Y.tolist()[1:]], C, None, "holds None next to numbers"),
    "missing strings": (lambda: pd.Series([None, *WORDS[1:]]), C, None, "1 are missing"),
    "masked": (lambda: np.ma.array(Y.numpy(), mask=TWO.numpy() > 0), C, None, "15 values of a masked array"),
    "complex": (lambda: Y.to(torch.complex64), C, None, "found complex64"),
    "one-hot of minus one and one": (lambda: 2 * F.one_hot(Y, C) - 1, C, None, "no distributions"),
    "a row of labels": (lambda: Y[None], C, None, "one label per input"),
    "categories in an order of their own": (
        lambda: pd.Series(pd.Categorical(WORDS, ["eel", "cat", "dog"])), C, None, "order eel, cat, dog"),
}  # fmt: skip


@pytest.mark.parametrize("kind", REFUSED)
def test_what_is_no_label_is_one_sentence(kind: str) -> None:
    make, outputs_, law, said = REFUSED[kind]
    with pytest.raises(MemspaceError, match=said):
        loss(make(), outputs_, law)
