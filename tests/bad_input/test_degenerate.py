"""Networks and data at the edge: an audit answers, and says of each number that is not there why."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

import memspace
from memspace.task.likelihood import Bernoulli, Categorical, Gaussian, Likelihood

N, D = 12, 4
X = torch.randn(N, D, generator=torch.Generator().manual_seed(0))
Y = torch.arange(N) % 3


def zero(outputs: int = 3) -> nn.Module:
    model = nn.Linear(D, outputs)
    with torch.no_grad():
        for p in model.parameters():
            p.zero_()
    return model


def saturated() -> nn.Module:
    model = zero()
    with torch.no_grad():
        model.bias[0] = 300.0
    return model


def line(outputs: int = 3) -> nn.Module:
    torch.manual_seed(1)
    return nn.Linear(D, outputs)


CASES: dict[str, tuple[Callable[[], nn.Module], Tensor, Tensor, Likelihood]] = {
    "one class": (line, X, Y * 0, Categorical()),
    "zero weights": (zero, X, Y, Categorical()),
    "saturated and right": (saturated, X, Y * 0, Categorical()),
    "saturated and wrong": (saturated, X, Y, Categorical()),
    "one example": (line, X[:1], Y[:1], Categorical()),
    "two examples": (line, X[:2], Y[:2], Categorical()),
    "fewer examples than classes": (lambda: line(9), X[:5], Y[:5], Categorical()),
    "distributions as labels": (line, X, torch.softmax(X[:, :3], -1), Categorical()),
    "one binary output": (lambda: line(1), X, (Y > 0).float(), Bernoulli()),
    "zero weights, binary": (zero, X, nn.functional.one_hot(Y, 3), Bernoulli()),
    "regression without residuals": (zero, X, torch.zeros(N, 3), Gaussian()),
    "regression of one example": (line, X[:1], torch.ones(1, 3), Gaussian()),
}


@pytest.mark.parametrize("name", CASES)
def test_a_degenerate_audit_ends_with_numbers_or_reasons(name: str) -> None:
    make, x, y, law = CASES[name]
    results = memspace.audit(make(), (x, y), (x, y), likelihood=law)
    for chapter in results.chapters:
        for m in chapter.measurements:
            assert not math.isnan(m.value), m.name
        assert all(u.reason and u.remedy for u in chapter.unmeasured)
    results.to_dict()
    if name.startswith("saturated"):
        assert results.measurement("fisher.trace").value < 1e-60
