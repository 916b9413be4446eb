"""The shared values of predictors, against numbers written out by hand and autograd example by example."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from memspace.measures.predictors.values import (
    GradientSample,
    Margins,
    OtherParameters,
    Sisters,
    TrainingCurve,
    WeightChanges,
    WeightMatrices,
    drawn_examples,
)
from memspace.measures.predictors.workspace import workspace_of
from memspace.task.run import Run
from memspace.task.task import Task
from memspace.value import Absent
from tests.predictors.networks import ALL, convolutional, perceptron, sequence_labels, transformer


def test_kernels_are_flattened_and_tables_of_embeddings_turned():
    matrices = workspace_of(convolutional(0)).get(WeightMatrices).matrices
    assert [m.now.shape for m in matrices] == [(4, 9), (3, 4 * 9), (3, 3)]
    task = transformer(0)
    by_name = {m.name: m for m in workspace_of(task).get(WeightMatrices).matrices}
    assert by_name["embed.weight"].embedding
    assert torch.equal(by_name["embed.weight"].now, task.model.embed.weight.detach().double().t())
    assert by_name["place"].now.shape == (5, 8)  # (1, 5, 8): the same for all examples


def test_transposed_convolutions_have_their_outputs_first():
    model = nn.Sequential(nn.ConvTranspose1d(2, 3, 2), nn.Flatten(), nn.Linear(15, 2)).double()
    task = Task(model=model, train=(torch.randn(6, 2, 4, dtype=torch.float64), torch.tensor([0, 1] * 3)))
    first = workspace_of(task).get(WeightMatrices).matrices[0]
    expected = model[0].weight.detach().numpy().transpose(1, 0, 2).reshape(3, 4)
    assert np.array_equal(first.now.numpy(), expected)


@pytest.mark.parametrize("make", ALL)
def test_matrices_and_vectors_are_all_parameters(make):
    task = make(1)
    workspace = workspace_of(task)
    weights, others = workspace.get(WeightMatrices), workspace.get(OtherParameters)
    total = sum(float(p.now.square().sum()) for p in (*weights.matrices, *others.vectors))
    assert total == pytest.approx(sum(float(p.detach().double().square().sum()) for p in task.model.parameters()))


def test_changes_are_those_since_the_first_state():
    task = perceptron(0)
    start = {k: v + 0.25 for k, v in task.model.state_dict().items()}
    moved = perceptron(0, run=Run((start, task.model.state_dict()), (0.0, 1.0), (0, 10)))
    changes = workspace_of(moved).get(WeightChanges)
    size = sum(p.numel() for p in task.model.parameters())
    assert changes.squared == pytest.approx(size / 16)
    assert all(torch.allclose(m.now, torch.full_like(m.now, -0.25)) for m in changes.matrices)
    unknown = workspace_of(task).get(WeightChanges)
    assert isinstance(unknown, Absent)
    assert "start" in unknown.reason


@pytest.mark.parametrize("make", ALL)
def test_margins_are_the_label_over_the_best_other_class(make):
    task = make(2)
    x, y = task.train.batch(range(len(task.train))).x, sequence_labels(task)
    f = task.model(x).detach().double().flatten(0, -2).numpy()
    expected = [row[label] - np.delete(row, label).max() for row, label in zip(f, y.flatten(), strict=True)]
    assert np.allclose(workspace_of(task).get(Margins).values.numpy(), expected)


def test_padded_positions_have_no_margin():
    task = transformer(0)
    labels = sequence_labels(task).clone()
    labels[0, :2] = -100
    padded = Task(model=task.model, train=(task.train.batch(range(len(task.train))).x, labels))
    assert len(workspace_of(padded).get(Margins).values) == labels.numel() - 2


@pytest.mark.parametrize("make", ALL)
def test_products_of_gradients_are_those_of_autograd(make):
    task = make(3)
    sample = workspace_of(task).get(GradientSample)
    parameters = list(task.model.parameters())
    rows = []
    for i in range(len(task.train)):
        x, y = task.train.batch([i]).x, sequence_labels(task)[i]
        f = task.model(x)[0]
        loss = nn.functional.cross_entropy(f.reshape(-1, f.shape[-1]), y.flatten())  # the mean over positions
        gradients = torch.autograd.grad(loss, parameters)
        rows.append(torch.cat([g.flatten() for g in gradients]))
    g, theta = torch.stack(rows), torch.cat([p.detach().flatten() for p in parameters])
    assert sample.index.tolist() == list(range(len(task.train)))
    assert torch.allclose(sample.gram.sum(0), g @ g.t(), rtol=1e-8, atol=1e-10)
    assert torch.allclose(sample.weights.sum(0), g @ theta, rtol=1e-8, atol=1e-10)
    assert float(sample.norms.sum()) == pytest.approx(float(theta.square().sum()))


@pytest.mark.parametrize("kind", [Sisters, TrainingCurve])
def test_what_only_the_zoo_knows_is_absent_with_its_reason(kind):
    made = workspace_of(perceptron(0)).get(kind)
    assert isinstance(made, Absent)
    assert made.reason
    assert made.remedy


def test_drawn_examples_are_different_ones_in_order():
    index = drawn_examples(1000, 256, 3)
    assert len(index) == 256
    assert (index.diff() > 0).all()
    assert drawn_examples(7, 256, 3).tolist() == list(range(7))
    assert not torch.equal(index, drawn_examples(1000, 256, 4))
