"""Declared measures of pairs of factors, on networks whose answers are known."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from memspace import Factors, Task
from memspace.measures.factor_pairs import FACTOR_PAIR_MEASURES
from memspace.measures.values import Budget
from memspace.measures.workspace import Workspace
from memspace.progress import Silent
from memspace.task.likelihood import Gaussian

NAMES, SIZES = ("a", "b", "c"), (5, 6, 4)


class Circles(nn.Module):
    """Each factor on a circle of its own; or two of them on a sphere."""

    def __init__(self, round_: bool) -> None:
        super().__init__()
        self.round, self.head = round_, nn.Linear(6, 6, bias=False).double()
        with torch.no_grad():
            self.head.weight.copy_(torch.eye(6))

    def forward(self, x: Tensor) -> Tensor:
        a, b, c = (0.3 * x + 0.4).T
        ring = [c.cos(), c.sin()]
        if self.round:
            parts = [a.sin() * b.cos(), a.sin() * b.sin(), a.cos(), 0 * a, *ring]
        else:
            parts = [a.cos(), a.sin(), b.cos(), b.sin(), *ring]
        return self.head(torch.stack(parts, 1))  # type: ignore[no-any-return]


def _task(model: nn.Module, outputs: int = 6) -> Task:
    g = torch.Generator().manual_seed(0)
    values = torch.stack([torch.randint(0, s, (200,), generator=g) for s in SIZES], 1)
    factors = Factors(NAMES, values, values.double(), SIZES, lambda v: v.double())
    y = torch.zeros(200, outputs, dtype=torch.float64)
    return Task(model=model, train=(factors.inputs, y), likelihood=Gaussian(0.5), factors=factors)


def _measure(task: Task) -> tuple[dict[str, float], list[str]]:
    workspace = Workspace({Task: task, Budget: Budget(0, 0, Silent())})
    measurements, unmeasured = workspace.measure_all(FACTOR_PAIR_MEASURES)
    for m in measurements:
        assert m.interval is not None
        assert m.interval[0] - 1e-12 <= m.value <= m.interval[1] + 1e-12
    return {m.name.removeprefix("disentanglement."): m.value for m in measurements}, [u.reason for u in unmeasured]


def test_circles_of_their_own_are_flat_and_orthogonal() -> None:
    v, unmeasured = _measure(_task(Circles(False)))
    assert v["holonomy"] < 1e-6
    assert v["fisher_cosine.a.b"] == pytest.approx(0, abs=1e-9)
    assert v["fisher_cosine.b.c"] == pytest.approx(0, abs=1e-9)
    assert v["told_apart.a"] == pytest.approx(1, abs=1e-9)
    assert unmeasured == []


def test_a_sphere_is_seen_as_curved_though_its_factors_are_orthogonal() -> None:
    v, _ = _measure(_task(Circles(True)))
    assert v["fisher_cosine.a.b"] == pytest.approx(0, abs=1e-3)
    # One pair of three turns, by √2 times the solid angle of 0.3 by 0.3: at most 0.127, over three
    assert 0.01 < v["holonomy"] < 0.127 / 3 * 1.01
    assert v["holonomy.null"] < 0.1 * v["holonomy"]


def test_factors_moved_alike_are_not_told_apart() -> None:
    inner = nn.Linear(3, 4, bias=False).double()
    with torch.no_grad():
        inner.weight.copy_(torch.tensor([[1.0, 1, 0], [1, 1, 0], [0, 0, 1], [0, 0, 1]]))
    v, _ = _measure(_task(nn.Sequential(inner, nn.Linear(4, 4).double()), 4))
    assert v["fisher_cosine.a.b"] == pytest.approx(1, abs=1e-9)
    assert v["told_apart.a"] == pytest.approx(0, abs=1e-6)
    assert v["told_apart.c"] > 0.1
    assert "holonomy" not in v or v["holonomy"] < 1e-6


def test_what_cannot_be_measured_is_silent_or_says_why() -> None:
    task = _task(Circles(False))
    assert task.factors is not None
    v, reasons = _measure(replace(task, factors=replace(task.factors, render=None)))
    assert (v, reasons) == ({}, [])
    narrow = nn.Sequential(nn.Linear(3, 2), nn.Tanh(), nn.Linear(2, 4)).double()
    v, reasons = _measure(_task(narrow, 4))
    assert "holonomy" not in v
    assert any("two factors span it" in r for r in reasons)
    _, reasons = _measure(replace(task, factors=None))
    assert all("not known" in r for r in reasons)
