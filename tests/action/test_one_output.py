"""A law of classes on a single output has no metric: the optimiser and the penalties say so."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import memspace
from memspace.errors import TaskError

X = torch.randn(16, 4, generator=torch.Generator().manual_seed(0))
Y = (X[:, :1] > 0).float()


def _net() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 1))


def test_the_natural_gradient_names_the_laws_of_one_output() -> None:
    model = _net()
    optimiser = memspace.NaturalGradient(model)
    nn.functional.binary_cross_entropy_with_logits(model(X), Y).backward()
    with pytest.raises(TaskError, match="Bernoulli"):
        optimiser.step()


def test_the_natural_gradient_of_the_right_law_descends() -> None:
    model = _net()
    optimiser, losses = memspace.NaturalGradient(model, likelihood=memspace.Bernoulli()), []
    for _ in range(5):
        optimiser.zero_grad()
        loss = nn.functional.binary_cross_entropy_with_logits(model(X), Y)
        loss.backward()
        losses.append(loss.item())
        optimiser.step()
    assert losses[-1] < losses[0]


def test_penalties_name_them_too() -> None:
    model = _net()
    with pytest.raises(TaskError, match="Gaussian"):
        memspace.FisherRaoNorm(model, memspace.Categorical())(X)
    with pytest.raises(TaskError, match="Gaussian"):
        memspace.FisherProximal(model, memspace.Categorical(), 0.1)(X)
    _, penalty = memspace.FisherRaoNorm(model, memspace.Bernoulli())(X)
    assert float(penalty.detach()) > 0
