"""Margins in outputs, in the last representation and in the weights, against their definitions."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import nn

from memspace.measures.predictors.hidden import LastLayer
from memspace.measures.predictors.margins import WeightMargins, boundary_distances
from memspace.measures.predictors.values import LowerMargin, Margins
from memspace.measures.predictors.workspace import workspace_of
from memspace.measures.workspace import Workspace
from memspace.task.likelihood import Gaussian
from memspace.task.task import Task
from memspace.value import Absent
from tests.predictors.networks import ALL, gated, measured, perceptron, sequence_labels, transformer


def fixed(outputs, labels):
    """A network whose outputs on the training data are these: it multiplies one-hot inputs by them."""
    f = torch.tensor(outputs, dtype=torch.float64)
    model = nn.Sequential(nn.Linear(len(f), f.shape[1], bias=False)).double()
    model[0].weight = nn.Parameter(f.t().clone())
    return Task(model=model, train=(torch.eye(len(f), dtype=torch.float64), torch.tensor(labels)))


def test_percentiles_and_means_of_margins_known_by_heart():
    rows = [[float(k), 0.0, -1.0] for k in range(1, 22)]  # margins 1, 2, …, 21
    made = measured(workspace_of(fixed(rows, [0] * 21)), "margins.")
    assert made["margins.mean"].value == pytest.approx(11.0)
    assert made["margins.lower"].value == pytest.approx(3.0)  # a tenth of the way from 1 to 21
    assert made["margins.inverse"].value == pytest.approx(math.log(math.sqrt(1 / (9 * 21))))
    f = np.array(rows)
    gain = np.sqrt(((f - f.mean(1, keepdims=True)) ** 2).mean())
    assert made["margins.normalised"].value == pytest.approx(3.0 / gain)


def test_a_misclassified_tenth_leaves_no_margin_to_divide_by():
    margin = workspace_of(fixed([[1.0, 0.0]] * 8 + [[0.0, 1.0]] * 2, [0] * 10)).get(LowerMargin)
    assert isinstance(margin, Absent)
    assert "misclassified" in margin.reason


def test_the_interval_of_a_percentile_holds_as_often_as_it_says():
    generator = torch.Generator().manual_seed(0)
    truth, inside = -math.log(0.9), 0  # 10th percentile of an exponential margin
    workspace = workspace_of(perceptron(0))
    for _ in range(200):
        values = torch.empty(100, dtype=torch.float64).exponential_(generator=generator)
        made = measured(Workspace(workspace.given | {Margins: Margins(values)}), "margins.lower")["margins.lower"]
        inside += made.interval[0] <= truth <= made.interval[1]
    assert inside >= 180  # 190 expected, standard deviation 3


def test_distances_to_the_boundary_reach_it():
    task = perceptron(3, n=40)
    last = workspace_of(task).get(LastLayer)
    w, b, y = last.weight, task.model[2].bias.detach(), last.predictions.y
    for h, label, distance in zip(last.hidden, y, boundary_distances(last), strict=True):
        f = w @ h + b
        others = [k for k in range(3) if k != label]
        reach = [(f[label] - f[k]) / (w[label] - w[k]).norm() for k in others]
        k = others[int(np.argmin(reach))]
        step = (w[label] - w[k]) / (w[label] - w[k]).norm()
        moved = w @ (h - distance * step) + b
        assert float(moved[label] - moved[k]) == pytest.approx(0.0, abs=1e-12)
        assert float(distance) == pytest.approx(float(min(reach)))


def test_quartiles_of_distances_are_in_units_of_the_spread():
    workspace = workspace_of(perceptron(3, n=40))
    last, made = workspace.get(LastLayer), measured(workspace, "margins.boundary")
    h = last.hidden.numpy()
    spread = np.sqrt(np.trace(np.cov(h.T, ddof=0)))
    quartiles = np.quantile(boundary_distances(last).numpy() / spread, [0.25, 0.5, 0.75])
    names = ("lower", "median", "upper")
    assert [made[f"margins.boundary.{name}"].value for name in names] == pytest.approx(list(quartiles))


@pytest.mark.parametrize("make", ALL)
def test_margins_in_the_weights_are_of_first_order(make):
    task = make(4)
    parameters, expected = list(task.model.parameters()), []
    for i in range(len(task.train)):
        f, y = task.model(task.train.batch([i]).x)[0], sequence_labels(task)[i]
        f, y = f.reshape(-1, f.shape[-1]), y.flatten()
        other = f.scatter(1, y[:, None], -math.inf).amax(1)
        margin = (f.gather(1, y[:, None])[:, 0] - other).min()
        length = torch.cat([g.flatten() for g in torch.autograd.grad(margin, parameters)]).norm()
        expected.append(float(margin.detach() / length))
    assert torch.allclose(workspace_of(task).get(WeightMargins).values, torch.tensor(expected).double())


def test_positions_of_one_example_have_no_interval_of_a_percentile():
    made = measured(workspace_of(gated(0)), "margins.lower")["margins.lower"]
    assert made.interval is None
    assert made.n == 32


def test_a_network_that_does_not_end_in_a_linear_layer_has_no_last_layer():
    class Scaled(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = nn.Linear(4, 3)

        def forward(self, x):
            return 2 * self.inner(x)

    x, y = torch.randn(6, 4, dtype=torch.float64), torch.tensor([0, 1, 2] * 2)
    assert isinstance(workspace_of(Task(model=Scaled().double(), train=(x, y))).get(LastLayer), Absent)


def test_a_regression_has_no_margins():
    torch.manual_seed(0)
    x, y = torch.randn(6, 4, dtype=torch.float64), torch.randn(6, 1, dtype=torch.float64)
    workspace = workspace_of(Task(model=nn.Linear(4, 1).double(), train=(x, y), likelihood=Gaussian()))
    assert isinstance(workspace.get(Margins), Absent)
    assert not measured(workspace, "margins.")


def test_padded_positions_have_no_say_in_the_least_margin():
    task = transformer(0)
    x, y = task.train.batch(range(8)).x, task.train.batch(range(8)).y.clone()
    y[:, 1:] = -100
    values = workspace_of(Task(model=task.model, train=(x, y))).get(WeightMargins).values
    parameters = list(task.model.parameters())
    for i, value in enumerate(values):
        f, label = task.model(x[i : i + 1])[0, 0], int(y[i, 0])
        margin = f[label] - torch.cat([f[:label], f[label + 1 :]]).max()
        gradients = torch.autograd.grad(margin, parameters, allow_unused=True)
        length = torch.cat([g.flatten() for g in gradients if g is not None]).norm()
        assert float(value) == pytest.approx(float(margin.detach() / length))
