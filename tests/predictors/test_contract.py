"""Every predictor keeps the contract of a measure, and none reads test data."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import nn

from memspace.measurement import Measurement
from memspace.measures.declaration import declaration_of
from memspace.measures.predictors.hidden import sisters_of
from memspace.measures.predictors.values import TrainingCurve
from memspace.measures.predictors.workspace import workspace_of
from memspace.task.run import Run
from memspace.task.task import Task
from memspace.testing import check_measure
from tests.predictors.networks import ALL, measured, measures, perceptron

PREDICTORS = measures("")


def wide(seed: int) -> Task:
    """A network on which every predictor applies: layers of 24 units, one example in twenty wrong."""
    torch.manual_seed(seed)
    model = nn.Sequential(nn.Linear(24, 24), nn.ReLU(), nn.Linear(24, 2)).double()
    start = {k: v + 0.1 * torch.randn_like(v) for k, v in model.state_dict().items()}
    x = torch.randn(40, 24, dtype=torch.float64)
    y = model(x).argmax(1)
    y[:2] = 1 - y[:2]
    return Task(model=model, train=(x, y), run=Run((start, model.state_dict()), (0.0, 1.0), (0, 9)))


TASK = wide(0)
CURVE = TrainingCurve((0, 10, 20, 30), (1.0, 0.5, 0.3, 0.2), 30, 3.0)
GIVEN = {type(v): v for v in (CURVE, sisters_of(TASK, [wide(k).model.state_dict() for k in (1, 2)]))}


@pytest.mark.parametrize("function", PREDICTORS, ids=lambda f: declaration_of(f).name)
def test_every_predictor_keeps_the_contract_of_a_measure(function):
    outcomes = check_measure(function, TASK, GIVEN)
    assert all(isinstance(outcome, Measurement) for outcome in outcomes), outcomes


def test_there_are_as_many_as_the_documentation_lists():
    names = [declaration_of(f).name for f in PREDICTORS]
    assert len(names) == len(set(names)) >= 52
    signed = [declaration_of(f) for f in PREDICTORS if declaration_of(f).better]
    assert len(signed) >= 50  # a direction is claimed for all but a few


@pytest.mark.parametrize("make", ALL)
def test_every_network_has_most_predictors_and_reasons_for_the_others(make):
    workspace = workspace_of(make(0), CURVE)
    made, unmeasured = workspace.measure_all(PREDICTORS)
    assert len(made) > 25
    assert all(u.reason and not u.reason.startswith("it failed") for u in unmeasured)


def test_test_data_are_not_read():
    task = perceptron(0)
    other = replace(task, test=(torch.full((5, 4), 1e6, dtype=torch.float64), torch.zeros(5, dtype=torch.long)))
    assert measured(workspace_of(other)) == measured(workspace_of(task))
