"""The spectrum of random networks against the mean-field law, through the dual Gram matrix."""

import pytest
import torch
from torch import nn

from memspace.metric.fisher import build
from memspace.metric.mean_field import ACTIVATIONS, mean_field
from memspace.passes.space import ParameterSpace
from memspace.task.likelihood import Gaussian
from memspace.task.task import Task

N, C, BIAS = 100, 2, 0.1


def measured(width, seed):
    """(mean, second moment, largest) of a random three-layer ReLU network's F."""
    generator = torch.Generator().manual_seed(seed)
    model = nn.Sequential(
        nn.Linear(width, width), nn.ReLU(), nn.Linear(width, width), nn.ReLU(), nn.Linear(width, C)
    ).double()
    with torch.no_grad():
        for layer in model[::2]:
            scale = (2 / layer.in_features) ** 0.5
            layer.weight.copy_(scale * torch.randn(layer.weight.shape, generator=generator, dtype=torch.float64))
            layer.bias.copy_(BIAS**0.5 * torch.randn(layer.bias.shape, generator=generator, dtype=torch.float64))
    x = torch.randn(N, width, generator=generator, dtype=torch.float64)
    task = Task(model=model, train=(x, torch.zeros(N, C, dtype=torch.float64)), likelihood=Gaussian(1.0))
    metric = build(task, ParameterSpace(model), "dual")
    values = metric.eigenvalues()
    return torch.stack([values.sum() / metric.size, values.square().sum() / metric.size, values[0]])


def test_measured_spectra_approach_the_prediction_as_width_grows():
    errors = {}
    for width, seeds in ((200, 16), (800, 4)):
        law = mean_field([width] * 3, C, N, bias_variance=BIAS)
        truth = torch.tensor([law.mean, law.second_moment, law.largest], dtype=torch.float64)
        errors[width] = torch.stack([measured(width, s) for s in range(seeds)]).mean(0) / truth - 1
    # Deviations are of order 1/width plus the seeds' scatter (3 to 7% each at 800, half of that in the mean of four).
    assert float(errors[800].abs().max()) < 0.10
    assert float(errors[800].abs().sum()) < float(errors[200].abs().sum())


def test_kappas_of_the_published_setting():
    law = mean_field([800] * 3, C, N, bias_variance=BIAS)
    assert law.kappa == pytest.approx((1.575, 0.4015), rel=1e-3)
    assert law.learning_rate == 2 / law.largest


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_gaussian_moments_against_sampling(name):
    q, c = 1.7, 0.6
    generator = torch.Generator().manual_seed(5)
    z = torch.randn(2, 400_000, generator=generator, dtype=torch.float64)
    u, v = q**0.5 * z[0], c / q**0.5 * z[0] + (q - c * c / q) ** 0.5 * z[1]
    phi = {
        "relu": (torch.relu, lambda t: (t > 0).double()),
        "erf": (lambda t: torch.erf(t / 2**0.5), lambda t: (2 / torch.pi) ** 0.5 * torch.exp(-t * t / 2)),
        "tanh": (torch.tanh, lambda t: 1 - torch.tanh(t) ** 2),
        "linear": (lambda t: t, torch.ones_like),
    }[name]
    for fn, moment in zip(phi, (ACTIVATIONS[name].value, ACTIVATIONS[name].slope), strict=True):
        products = fn(u) * fn(v)
        error = float(products.std()) / len(u.flatten()) ** 0.5
        assert abs(moment(q, c) - float(products.mean())) <= 4 * error + 1e-12


def test_a_network_without_hidden_layers_or_of_unknown_activation_is_refused():
    with pytest.raises(ValueError, match="hidden"):
        mean_field([10], 2, 5)
    with pytest.raises(ValueError, match="swish"):
        mean_field([10, 10], 2, 5, activation="swish")
