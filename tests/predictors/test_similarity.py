"""Similarity of networks: closed forms, the definition of the unbiased estimate, and networks read by their states."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch

from memspace.measures.predictors.hidden import read_hidden, sisters_of
from memspace.measures.predictors.similarity import debiased_cka, debiased_hsic
from memspace.measures.predictors.values import Sisters
from memspace.measures.predictors.workspace import workspace_of
from memspace.task.task import Task
from tests.predictors.networks import ALL, measured, measures, perceptron, transformer


def draw(m, d, seed):
    return torch.randn(m, d, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_the_unbiased_estimate_is_the_mean_over_quadruples():
    a, b = draw(6, 3, 0).numpy(), draw(6, 2, 1).numpy()
    k, g = a @ a.T, b @ b.T
    terms = [
        k[i, j] * (g[i, j] + g[q, r] - 2 * g[i, q]) for i, j, q, r in itertools.permutations(range(6), 4)
    ]  # HSIC = E k(x,x')g(y,y') + E k(x,x') E g(y'',y''') − 2 E k(x,x')g(y,y'')
    assert debiased_hsic(torch.tensor(a), torch.tensor(b)) == pytest.approx(np.mean(terms))


def test_a_representation_is_its_own_up_to_rotation_scale_and_shift():
    a = draw(40, 5, 0)
    rotation = torch.linalg.qr(draw(5, 5, 1)).Q
    assert debiased_cka(a, a) == pytest.approx(1.0)
    assert debiased_cka(a, 3 * a @ rotation + 7) == pytest.approx(1.0)


def test_independent_representations_have_none_on_average():
    values = [debiased_cka(draw(60, 8, 2 * s), draw(60, 8, 2 * s + 1)) for s in range(60)]
    assert abs(np.mean(values)) < 3 * np.std(values, ddof=1) / math.sqrt(60)
    biased = []
    for s in range(60):
        a, b = (x - x.mean(0) for x in (draw(60, 8, 2 * s), draw(60, 8, 2 * s + 1)))
        biased.append(float((a.t() @ b).square().sum() / ((a.t() @ a).norm() * (b.t() @ b).norm())))
    assert np.mean(biased) > 0.05  # the plain estimate of the same samples is far from none


def test_a_constant_representation_has_no_similarity():
    assert math.isnan(debiased_cka(torch.ones(10, 3), draw(10, 3, 0)))


def test_identical_networks_are_identical():
    task = perceptron(0)
    made = measured(workspace_of(task, sisters_of(task, [task.model.state_dict()] * 2)), "similarity.")
    assert made["similarity.cka"].value == pytest.approx(1.0)
    assert made["similarity.disagreement"].value == 0.0
    assert made["similarity.output_distance"].value == pytest.approx(0.0, abs=1e-7)


def test_disagreement_and_distance_of_two_outputs_known_by_heart():
    p, q = torch.tensor([0.9, 0.1]), torch.tensor([0.2, 0.8])
    own = torch.stack([p, p, q, q]).log().double()
    other = torch.stack([p, q, q, q]).log().double()
    hidden = draw(4, 2, 0)
    sisters = Sisters(hidden, own, ((hidden, other), (hidden, own)))
    made = measured(workspace_of(perceptron(0), sisters), "similarity.")
    assert made["similarity.disagreement"].value == pytest.approx((1 / 4 + 0) / 2)
    angle = 2 * math.acos(math.sqrt(0.9 * 0.2) + math.sqrt(0.1 * 0.8))  # of √p and √q on a sphere of radius 2
    assert made["similarity.output_distance"].value == pytest.approx(angle / 8, rel=1e-6)


@pytest.mark.parametrize("make", ALL)
def test_networks_are_read_by_their_states(make):
    task, other = make(0), make(1)
    sisters = sisters_of(task, [other.model.state_dict()])
    x = task.train.batch(range(len(task.train))).x
    f = other.model(x).detach().flatten(0, -2)
    assert torch.allclose(sisters.others[0][1], f)
    head = [m for m in other.model.modules() if isinstance(m, torch.nn.Linear)][-1]
    assert torch.allclose(sisters.others[0][0] @ head.weight.detach().t() + head.bias.detach(), f)
    assert torch.allclose(task.model(x).detach().flatten(0, -2), sisters.outputs)  # its weights are put back


def test_padded_positions_have_no_representation():
    task = transformer(0)
    x, y = task.train.batch(range(8)).x, task.train.batch(range(8)).y.clone()
    y[:, 3:] = -100
    padded = Task(model=task.model, train=(x, y))
    read = read_hidden(padded, torch.arange(8))
    assert len(read.rows) == len(read.predictions.f) == 24


def test_one_other_network_tells_no_spread():
    task = perceptron(0)
    made = measured(workspace_of(task, sisters_of(task, [perceptron(1).model.state_dict()])), "similarity.")
    assert not any(m.reliable or m.interval for m in made.values())


def test_without_other_networks_nothing_is_measured():
    _, unmeasured = workspace_of(perceptron(0)).measure_all(measures("similarity."))
    assert len(unmeasured) == 3
    assert {u.reason for u in unmeasured} == {"no networks trained with other seeds were given"}
