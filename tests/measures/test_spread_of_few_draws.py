"""Errors over a few draws are those of a few draws; what an example owns is told with its sign."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from memspace import Task
from memspace.measures.leave_one_out import self_influence
from memspace.measures.robustness import _controlled, _mean_error
from memspace.metric.fisher import build
from memspace.metric.spectral import Kronecker
from memspace.passes.engine import run_pass
from memspace.passes.forms.whole import WholeForm
from memspace.passes.leverage import KroneckerLeverage
from memspace.passes.statistics import Outputs
from memspace.passes.verify import verified_space


@pytest.mark.parametrize("draws", [3, 5])
def test_the_squared_error_of_a_mean_of_few_draws_is_unbiased(draws: int) -> None:
    rng = np.random.default_rng(0)
    _, error = _mean_error(rng.normal(2.0, 3.0, (20_000, draws)))
    assert float((error**2).mean()) == pytest.approx(9 / draws, rel=0.03)  # known to 1%


@pytest.mark.parametrize("draws", [5, 8])
def test_the_squared_error_of_a_controlled_mean_is_that_of_its_estimates(draws: int) -> None:
    """Of the same control values: given these, a regression's variance estimate is unbiased."""
    rng = np.random.default_rng(1)
    control = np.broadcast_to(rng.normal(1.0, 1.0, draws), (20_000, draws))
    values = 0.5 + 2.0 * control + rng.normal(0.0, 0.7, control.shape)
    mean, error = _controlled(values, control, np.asarray([1.0]))
    assert float(mean.mean()) == pytest.approx(2.5, abs=0.02)
    assert float((error**2).mean()) == pytest.approx(float(mean.var()), rel=0.05)


def test_self_influence_by_block_sums_to_that_of_the_leverage() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 3)).double()
    task = Task(model, (torch.randn(30, 4).double(), torch.arange(30) % 3))
    space = verified_space(task)
    metric = build(task, space, "ekfac")
    assert isinstance(metric, Kronecker)
    inverse = {b.block.name: 1 / (30 * (b.values.unsqueeze(0) + 0.01)) for b in metric.blocks}
    table = KroneckerLeverage(space.blocks, {b.block.name: b.bases for b in metric.blocks}, inverse)
    seen = Outputs()
    run_pass(task, space, [table, seen])
    found, at = table.finish(), seen.finish()
    whole = self_influence(task.likelihood, at["f"], at["y"], found["leverage"][:, 0])
    assert torch.allclose(found["parts"][:, 0].sum(-1), whole, rtol=1e-10)
    assert bool((found["parts"] > 0).all())


@pytest.mark.parametrize("side", ["in", "out"])
def test_a_diagonal_is_that_of_the_second_moment_it_stands_for(side: str) -> None:
    matrices = torch.randn(2, 5, 4, 3, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    full, kept = WholeForm(matrices).moments(), WholeForm(matrices, side).moments()
    assert full.g is not None
    assert kept.g is not None
    pairs = ((full.a, kept.a), (full.g, kept.g))
    want, got = pairs[side == "out"]
    assert torch.allclose(got, want.diagonal())
    other_want, other_got = pairs[side == "in"]
    assert torch.allclose(other_got, other_want)
