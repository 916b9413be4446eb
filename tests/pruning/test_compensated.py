"""Compensated pruning: exact where the model is quadratic, no worse than simpler ways, and only on copies."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from memspace.errors import MemoryBudgetError
from memspace.measures.compensated import PruneSettings, fisher_rows, prune_compensated, schedule
from memspace.measures.efficiency import prunable
from memspace.measures.objective import Objective
from memspace.metric.constrained import RowMetric
from memspace.passes.space import ParameterSpace
from memspace.task.data import Data
from memspace.task.likelihood import Gaussian
from memspace.task.task import Task


def _problem(seed: int, rows: int, size: int) -> tuple[RowMetric, Tensor, Tensor, Tensor]:
    """A metric, weights, a gradient and which weights stay free."""
    g = torch.Generator().manual_seed(seed)
    metric = RowMetric.joint(torch.randn(rows, size, generator=g, dtype=torch.float64), 7)
    theta, gradient = torch.randn(2, size, generator=g, dtype=torch.float64)
    return metric, theta, gradient, torch.rand(size, generator=g) > 0.4


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10**6), rows=st.integers(1, 30), size=st.integers(2, 25), power=st.integers(-3, 2))
def test_the_joint_solve_is_the_dense_constrained_minimum(seed: int, rows: int, size: int, power: int) -> None:
    metric, theta, gradient, free = _problem(seed, rows, size)
    damping = 10.0**power
    change = metric.factor(free).change(-theta, gradient, damping)
    dense = metric.rows.t() @ metric.rows / metric.n + damping * torch.eye(size, dtype=torch.float64)
    want = -theta.clone()
    k, s = free.nonzero().squeeze(1), (~free).nonzero().squeeze(1)
    if len(k):
        want[k] = torch.linalg.solve(dense[k][:, k], -gradient[k] - dense[k][:, s] @ want[s])
    condition = float(torch.linalg.cond(dense))
    assert torch.allclose(
        change, want, rtol=0, atol=1e-13 * condition * (1 + float(want.abs().max())) / min(damping, 1)
    )
    fewer = metric.factor(torch.ones_like(free)).without(~free)
    assert torch.allclose(fewer.change(-theta, gradient, damping), change, rtol=1e-6, atol=1e-8)
    inverse = metric.factor(free).inverse_diagonal(damping)
    assert bool((inverse[s] == 0).all())
    if len(k):
        assert torch.allclose(inverse[k], torch.linalg.inv(dense[k][:, k]).diagonal(), rtol=1e-8 * max(1, 1 / damping))


def test_one_weight_is_hassibi_and_stork() -> None:
    metric, theta, _, _ = _problem(3, 40, 12)
    zero, damping = torch.zeros(12, dtype=torch.float64), 0.05
    inverse = torch.linalg.inv(metric.rows.t() @ metric.rows / metric.n + damping * torch.eye(12, dtype=torch.float64))
    for q in range(12):
        free = torch.arange(12) != q
        change = metric.factor(free).change(-theta, zero, damping)
        assert torch.allclose(change, -theta[q] / inverse[q, q] * inverse[:, q], atol=1e-10)
        assert metric.damage(change, zero, damping) == pytest.approx(
            float(theta[q] ** 2 / (2 * inverse[q, q])), rel=1e-9
        )


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10**6), rows=st.integers(5, 60))
def test_compensation_is_never_worse_than_cutting(seed: int, rows: int) -> None:
    """At equal sets; and of single weights, surgery's choice is below optimal brain damage's and magnitude's."""
    metric, theta, gradient, free = _problem(seed, rows, 20)
    damping, zero = 0.01, torch.zeros(20, dtype=torch.float64)
    plain = torch.where(free, zero, -theta)
    best = metric.factor(free).change(-theta, gradient, damping)
    assert metric.damage(best, gradient, damping) <= metric.damage(plain, gradient, damping) + 1e-9

    def after(q: int, compensated: bool) -> float:
        keep = torch.arange(20) != q
        change = metric.factor(keep).change(-theta, zero, damping) if compensated else torch.where(keep, zero, -theta)
        return metric.damage(change, zero, damping)

    every = torch.ones(20, dtype=torch.bool)
    obs = theta.square() / metric.factor(every).inverse_diagonal(damping)
    obd = (metric.rows.square().sum(0) / metric.n + damping) * theta.square()
    by_obs, by_obd = after(int(obs.argmin()), True), after(int(obd.argmin()), False)
    assert by_obs <= by_obd + 1e-12
    assert by_obd <= after(int(theta.abs().argmin()), False) + 1e-12


def test_layers_are_solved_apart() -> None:
    metric, theta, gradient, free = _problem(5, 15, 20)
    apart = RowMetric(metric.rows, metric.n, (slice(0, 8), slice(8, 20)))
    got, inverse = apart.factor(free).change(-theta, gradient, 0.1), apart.factor(free).inverse_diagonal(0.1)
    for part in apart.parts:
        one = RowMetric.joint(metric.rows[:, part], metric.n).factor(free[part])
        assert torch.allclose(got[part], one.change(-theta[part], gradient[part], 0.1), atol=1e-12)
        assert torch.allclose(inverse[part], one.inverse_diagonal(0.1), atol=1e-12)
    assert not torch.allclose(got, metric.factor(free).change(-theta, gradient, 0.1), atol=1e-3)


def _regression() -> Task:
    g = torch.Generator().manual_seed(0)
    x = torch.randn(60, 9, generator=g, dtype=torch.float64) @ torch.randn(9, 9, generator=g, dtype=torch.float64)
    model = nn.Linear(9, 2).double()
    return Task(model, Data((x, torch.randn(60, 2, generator=g, dtype=torch.float64))), Gaussian(), decay=0.0)


@pytest.mark.parametrize("name", ["function", "loss"])
def test_on_a_linear_regression_the_prediction_is_the_measurement(name: str) -> None:
    task = _regression()
    space = ParameterSpace.of(task)
    metric = fisher_rows(task, space, 1000, seed=0, memory=2**24)
    assert len(metric.rows) == 120  # all of them, exactly
    theta = space.flat(task.model)
    objective = Objective(task, space, name)
    gradient = objective.gradient(theta)
    free = torch.rand(space.size, generator=torch.Generator().manual_seed(1)) > 0.5
    change = metric.factor(free).change(-theta, gradient, 1e-6)
    measured = objective(theta + change) - objective(theta)
    assert metric.damage(change, gradient, 0.0) == pytest.approx(measured, rel=1e-10, abs=1e-10)


def _network() -> Task:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 16), nn.Tanh(), nn.Linear(16, 3))
    x = torch.randn(80, 6)
    with torch.no_grad():
        y = model(x).argmax(1)
    return Task(model, Data((x, y)))


@pytest.mark.parametrize("structure", ["joint", "layers"])
@pytest.mark.parametrize("objective", ["function", "loss"])
def test_masks_are_zero_shares_fall_and_the_model_is_untouched(structure: str, objective: str) -> None:
    task = _network()
    before = {k: v.clone() for k, v in task.model.state_dict().items()}
    space, shares = ParameterSpace.of(task), (0.7, 0.3, 0.1)
    mask = prunable(space, task)
    found = prune_compensated(task, space, mask, shares, PruneSettings(objective, 60, structure))
    assert all(torch.equal(v, before[k]) for k, v in task.model.state_dict().items())
    assert [p.share for p in found] == [0.7, 0.3, 0.1]
    last = torch.ones_like(mask)
    for p in found:
        assert bool((p.flat[~p.kept] == 0).all())
        assert int((p.kept & mask).sum()) == round(p.share * int(mask.sum()))
        assert bool(p.kept[~mask].all())
        assert not bool((p.kept & ~last).any())  # what is gone stays gone
        last = p.kept
        assert p.objective == pytest.approx(Objective(task, space, objective)(p.flat), rel=1e-6)
    if objective == "function":
        for p in found:
            cut = torch.where(mask, space.flat(task.model).abs(), torch.inf).argsort()
            plain = space.flat(task.model)
            plain[cut[: int(mask.sum()) - round(p.share * int(mask.sum()))]] = 0
            assert p.objective < Objective(task, space)(plain)


def test_the_gradient_is_that_of_the_objective() -> None:
    task = _network()
    space = ParameterSpace.of(task)
    theta = space.flat(task.model)
    for name in ("function", "loss"):
        objective = Objective(task, space, name)
        assert float(Objective(task, space, "function").gradient(theta).abs().max()) < 1e-7
        there = theta + 0.3 * torch.randn(space.size, generator=torch.Generator().manual_seed(2))
        direction = torch.randn(space.size, generator=torch.Generator().manual_seed(3))
        step = 1e-2
        slope = (objective(there + step * direction) - objective(there - step * direction)) / (2 * step)
        assert float(objective.gradient(there) @ direction.double()) == pytest.approx(slope, rel=5e-3)


def test_schedule_and_memory() -> None:
    assert schedule((0.1, 0.6), 0.5) == [0.6, 0.3, 0.15, 0.1]
    assert schedule((0.5,), 0.5) == [0.5]
    task = _network()
    with pytest.raises(MemoryBudgetError, match="fisher-diagonal"):
        fisher_rows(task, ParameterSpace.of(task), 100, seed=0, memory=1000)
    with pytest.raises(ValueError, match="structure"):
        PruneSettings(structure="dense")
    with pytest.raises(ValueError, match="objective"):
        Objective(task, ParameterSpace.of(task), "accuracy")
