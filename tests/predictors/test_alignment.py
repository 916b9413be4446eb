"""Agreement of gradients with weights and with one another: autograd example by example, and closed forms."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy import stats
from torch import nn

from memspace.measures.predictors.alignment import Alignment, kurtosis_corrected
from memspace.measures.predictors.values import GradientSample
from memspace.measures.predictors.workspace import workspace_of
from tests.predictors.networks import ALL, gated, measured, measures, perceptron, sequence_labels


def losses(task):
    """The loss of every prediction."""
    f = task.model(task.train.batch(range(len(task.train))).x)
    return nn.functional.cross_entropy(f.flatten(0, -2), sequence_labels(task).flatten(), reduction="none")


@pytest.mark.parametrize("make", ALL)
def test_cosines_are_those_of_each_predictions_gradient_with_the_last_layer(make):
    task = make(5)
    weight = [m for m in task.model.modules() if isinstance(m, nn.Linear)][-1].weight
    gradients = [torch.autograd.grad(loss, weight, retain_graph=True)[0] for loss in losses(task)]
    w = weight.detach()
    expected = [float(-(g * w).sum() / (g.norm() * w.norm())) for g in gradients]
    assert workspace_of(task).get(Alignment).cosine.tolist() == pytest.approx(expected)


@pytest.mark.parametrize("seed", range(3))
def test_the_correction_is_the_authors(seed):
    x = stats.beta(2, 5).rvs(300, random_state=seed)
    x = np.concatenate([x, [3.0, -2.0]])  # heavy tails on both sides
    assert kurtosis_corrected(torch.tensor(x)) == pytest.approx(x.mean() / (stats.kurtosis(x) + 1.2))
    made = measured(workspace_of(perceptron(0), Alignment(torch.tensor(x), None)), "alignment.gradient_weights")
    value = made["alignment.gradient_weights"]
    assert value.value == pytest.approx(x.mean() / (stats.kurtosis(x) + 1.2))
    without = [np.delete(x, i) for i in range(len(x))]
    each = np.array([w.mean() / (stats.kurtosis(w) + 1.2) for w in without])
    error = math.sqrt((len(x) - 1) / len(x) * ((each - each.mean()) ** 2).sum())
    assert value.interval[1] - value.value == pytest.approx(stats.t(len(x) - 1).ppf(0.975) * error)


def test_the_error_leaves_out_whole_sequences():
    x = torch.tensor(stats.t(5).rvs(60, random_state=0)) / 10 + 0.2
    groups = torch.arange(60) // 3
    made = measured(workspace_of(gated(0), Alignment(x, groups)), "alignment.gradient_weights")
    each = np.array([kurtosis_corrected(x[groups != g]) for g in range(20)])
    error = math.sqrt(19 / 20 * ((each - each.mean()) ** 2).sum())
    value = made["alignment.gradient_weights"]
    assert value.interval[1] - value.value == pytest.approx(stats.t(19).ppf(0.975) * error)


def test_cosines_spread_flatter_than_uniformly_have_no_corrected_mean():
    two_heaps = torch.tensor([0.1, 0.5] * 20, dtype=torch.float64)
    _, unmeasured = workspace_of(perceptron(0), Alignment(two_heaps, None)).measure_all(measures("alignment.gradient"))
    assert "uniformly" in unmeasured[0].reason


def gradients(task):
    """(m, P) by autograd, of each example's mean loss."""
    parameters = list(task.model.parameters())
    by_example = losses(task).reshape(len(task.train), -1).mean(1)
    rows = [torch.autograd.grad(loss, parameters, retain_graph=True) for loss in by_example]
    return torch.stack([torch.cat([g.flatten() for g in row]) for row in rows]).numpy()


@pytest.mark.parametrize("make", ALL)
def test_statistics_of_gradients_are_those_written_down(make):
    task = make(6)
    g, m = gradients(task), len(task.train)
    theta = torch.cat([p.detach().flatten() for p in task.model.parameters()]).numpy()
    made = measured(workspace_of(task), "gradients.") | measured(workspace_of(task), "alignment.whole")
    unit = g / np.linalg.norm(g, axis=1, keepdims=True)
    pairs = [float(unit[i] @ unit[j]) for i in range(m) for j in range(i)]
    common = np.mean([g[i] @ g[j] for i in range(m) for j in range(i)])
    assert made["gradients.coherence"].value == pytest.approx(np.mean(pairs))
    assert made["gradients.confusion"].value == pytest.approx(-min(pairs))
    assert made["gradients.signal"].value == pytest.approx(common / (g**2).sum(1).mean())
    assert made["gradients.noise"].value == pytest.approx(math.log(np.trace(np.cov(g.T, ddof=1))))
    assert made["gradients.norm"].value == pytest.approx(math.log(np.linalg.norm(g.mean(0))))
    assert made["alignment.whole"].value == pytest.approx(np.mean(-(unit @ theta) / np.linalg.norm(theta)))


def sample(g):
    gram = torch.tensor(g @ g.T)[None]
    zeros = torch.zeros(1, len(g), dtype=torch.float64)
    return GradientSample(torch.arange(len(g)), gram, zeros, torch.ones(1, dtype=torch.float64), ("all",))


def test_equal_and_orthogonal_gradients_are_known_by_heart():
    equal = measured(workspace_of(perceptron(0), sample(np.ones((6, 4)))), "gradients.")
    assert equal["gradients.coherence"].value == pytest.approx(1.0)
    assert equal["gradients.signal"].value == pytest.approx(1.0)
    assert "gradients.noise" not in equal
    apart = measured(workspace_of(perceptron(0), sample(2 * np.eye(6))), "gradients.")
    assert apart["gradients.coherence"].value == apart["gradients.signal"].value == 0.0
    assert apart["gradients.noise"].value == pytest.approx(math.log(4.0))  # orthogonal: all of E‖g‖² is noise
    opposed = measured(workspace_of(perceptron(0), sample(np.array([[1.0], [-1.0], [1.0]]))), "gradients.")
    assert opposed["gradients.confusion"].value == pytest.approx(1.0)


def test_errors_leave_out_one_example_at_a_time():
    g = np.random.default_rng(0).normal(size=(9, 5)) + 0.5
    made = measured(workspace_of(perceptron(0), sample(g)), "gradients.signal")["gradients.signal"]

    def signal(rows):
        m, gram = len(rows), rows @ rows.T
        return (gram.sum() - np.trace(gram)) / (m * (m - 1)) / (np.trace(gram) / m)

    each = np.array([signal(np.delete(g, i, 0)) for i in range(9)])
    error = math.sqrt(8 / 9 * ((each - each.mean()) ** 2).sum())
    assert made.value - made.interval[0] == pytest.approx(stats.t(8).ppf(0.975) * error)


def test_the_decay_that_was_added_to_the_loss_is_no_part_of_its_gradient():
    plain, decayed = (measured(workspace_of(perceptron(0, **f)), "gradients.norm") for f in ({}, {"decay": 0.3}))
    assert decayed["gradients.norm"].value == pytest.approx(plain["gradients.norm"].value)
