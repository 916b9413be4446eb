"""What a change of the weights costs is predicted by ½ δᵀFδ of that change, as a whole and by layer."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from memspace.intervals import margin
from memspace.measures.robustness import _controlled, _mean_error, quantised
from memspace.measures.sensitivity import layer_costs, measured_kl, predicted_kl
from memspace.metric.fisher import build
from memspace.passes.linearise import FisherOperator
from memspace.passes.outputs import outputs
from memspace.passes.space import ParameterSpace
from memspace.passes.verify import verified_space
from memspace.progress import Silent
from memspace.task.data import Data
from memspace.task.task import Task


def network(seed: int, n: int = 60) -> tuple[Task, ParameterSpace]:
    torch.manual_seed(seed)
    model = nn.Sequential(nn.Linear(6, 16), nn.Tanh(), nn.Linear(16, 16), nn.Tanh(), nn.Linear(16, 4)).double()
    x = torch.randn(n, 6, dtype=torch.float64)
    task = Task(model, Data((x, torch.randint(4, (n,)))))
    return task, verified_space(task)


def rounded(task: Task, space: ParameterSpace, bits: int) -> torch.Tensor:
    return space.pack({k: p.detach() for k, p in space.parameters(task.model).items()} | quantised(task, space, bits))


@pytest.mark.parametrize("seed", range(3))
def test_the_prediction_is_the_full_quadratic_form(seed: int) -> None:
    task, space = network(seed)
    change = rounded(task, space, 4) - space.flat(task.model)
    predicted = predicted_kl(FisherOperator(task, space), task, change)
    f = build(task, space, "dense").to_dense()
    assert float(predicted.mean()) == pytest.approx(0.5 * float(change @ f @ change), rel=1e-9)


@pytest.mark.parametrize("seed", range(4))
def test_rounding_costs_what_the_full_form_predicts_and_not_the_diagonal(seed: int) -> None:
    """At 8 bits the change is small: the full form is right to a few percent, whatever the weights do together."""
    task, space = network(seed)
    theta, index = space.flat(task.model), torch.arange(60)
    before, y = outputs(task, task.train)
    flat = rounded(task, space, 8)
    measured = float(measured_kl(task, space, flat, before, y, index).mean())
    assert float(predicted_kl(FisherOperator(task, space), task, flat - theta).mean()) == pytest.approx(
        measured, rel=0.05
    )


@pytest.mark.parametrize("seed", range(3))
def test_layers_rank_by_their_own_change_and_not_by_the_trace(seed: int) -> None:
    """The first layer has the largest tr F, but its weights lie near the levels already: rounding is cheap there."""
    task, space = network(seed)
    with torch.no_grad():
        levels = torch.randint(-7, 8, (16, 6)).double() / 70
        levels[:, 0] = 0.1
        task.model[0].weight.copy_(levels + 1e-4 * torch.randn(16, 6))
        task.model[4].weight.mul_(3)
    diagonal = build(task, space, "diagonal").diagonal()
    assert float(diagonal[:112].sum()) > float(diagonal[-68:].sum())
    costs = layer_costs(task, space, rounded(task, space, 4), torch.arange(60), Silent())
    measured = {c.label: float(c.measured.mean()) for c in costs}
    predicted = {c.label: float(c.predicted.mean()) for c in costs}
    assert list(measured) == space.labels
    assert sorted(measured, key=measured.get) == sorted(predicted, key=predicted.get)
    assert min(measured, key=measured.get) == space.labels[0]
    for label, value in measured.items():
        assert predicted[label] == pytest.approx(value, rel=0.4)


@pytest.mark.parametrize("pairs", [4, 8])
def test_a_control_variate_with_a_fitted_slope_covers(pairs: int) -> None:
    """By Student's t on pairs − 2 degrees of freedom."""
    g = np.random.default_rng(pairs)
    control = g.gamma(3, 1 / 3, (4000, pairs))
    values = 2 + 1.5 * (control - 1) + g.normal(0, 0.3, (4000, pairs))
    value, error = _controlled(values, control, np.ones(4000))
    covered = np.abs(value - 2) <= margin(error, pairs - 2)
    assert np.mean(covered) == pytest.approx(0.95, abs=3 * (0.05 * 0.95 / 4000) ** 0.5)


@pytest.mark.parametrize("pairs", [2, 3, 5])
def test_a_mean_over_few_pairs_covers(pairs: int) -> None:
    """By Student's t on pairs − 1 degrees of freedom."""
    values = np.random.default_rng(pairs).normal(1, 0.5, (4000, pairs))
    mean, error = _mean_error(values)
    covered = np.abs(mean - 1) <= margin(error, pairs - 1)
    assert np.mean(covered) == pytest.approx(0.95, abs=3 * (0.05 * 0.95 / 4000) ** 0.5)
