"""Power laws fitted to samples whose exponent is known, and to spectra that are set by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy import stats
from torch import nn

from memspace.measures.predictors.tails import SpectralTails, fit_power_law
from memspace.measures.predictors.workspace import workspace_of
from memspace.task.task import Task
from memspace.value import Absent
from tests.predictors.networks import measured, perceptron


@pytest.mark.parametrize("alpha", [1.7, 2.5, 4.0])
@pytest.mark.parametrize("seed", range(2))
def test_the_exponent_of_a_pareto_sample_is_found(alpha, seed):
    sample = stats.pareto(alpha - 1, scale=3.0).rvs(1500, random_state=seed)  # density ~ x^−α from 3 on
    law = fit_power_law(sample)
    assert abs(law.alpha - alpha) < 4 * law.error
    assert law.error == pytest.approx((law.alpha - 1) / math.sqrt(law.tail))
    assert law.distance < 0.03


def test_the_start_of_the_tail_is_found():
    generator = np.random.default_rng(0)
    body = generator.uniform(0.1, 5.0, 1000)
    tail = stats.pareto(2.0, scale=5.0).rvs(1000, random_state=1)
    law = fit_power_law(np.concatenate([body, tail]))
    assert 4.5 < law.start < 7
    assert abs(law.alpha - 3.0) < 4 * law.error


def test_fit_and_distance_are_those_of_scipy():
    sample = stats.lognorm(1.0).rvs(300, random_state=2)
    law = fit_power_law(sample)
    tail = sample[sample >= law.start]
    assert law.tail == len(tail)
    assert law.alpha - 1 == pytest.approx(stats.pareto.fit(tail, floc=0, fscale=law.start)[0])
    fitted = stats.pareto(law.alpha - 1, scale=law.start)
    assert law.distance == pytest.approx(stats.kstest(tail, fitted.cdf).statistic)
    for start in np.sort(sample)[:-9:20]:  # nowhere is the distance smaller
        rest = sample[sample >= start]
        other = stats.pareto(stats.pareto.fit(rest, floc=0, fscale=start)[0], scale=start)
        assert stats.kstest(rest, other.cdf).statistic >= law.distance - 1e-12


@pytest.mark.parametrize("sample", [np.ones(50), np.arange(1.0, 9.0), np.zeros(30)])
def test_samples_without_a_tail_have_no_fit(sample):
    assert fit_power_law(sample) is None


def with_spectra(*spectra):
    """A network whose layers have these eigenvalues of WᵀW, in random directions."""
    torch.manual_seed(0)
    width = len(spectra[0])
    layers = [nn.Linear(width, width, bias=False) for _ in spectra]
    for layer, values in zip(layers, spectra, strict=True):
        left, right = (torch.linalg.qr(torch.randn(width, width, dtype=torch.float64)).Q for _ in range(2))
        layer.weight = nn.Parameter(left @ torch.diag(torch.as_tensor(values).sqrt()) @ right)
    model = nn.Sequential(*layers, nn.Linear(width, 2)).double()
    return Task(model=model, train=(torch.randn(6, width, dtype=torch.float64), torch.tensor([0, 1] * 3)))


def test_layers_are_averaged_and_small_ones_left_out():
    spectra = [np.sort(stats.pareto(a).rvs(40, random_state=3)) for a in (1.0, 2.0)]
    workspace = workspace_of(with_spectra(*spectra))
    laws = [fit_power_law(s) for s in spectra]
    assert len(workspace.get(SpectralTails).laws) == 2  # the last layer has two eigenvalues
    made = measured(workspace, "tails.")
    top = [math.log10(s.max()) for s in spectra]
    norms = [math.log10((s**law.alpha).sum()) for s, law in zip(spectra, laws, strict=True)]
    assert made["tails.alpha"].value == pytest.approx(np.mean([law.alpha for law in laws]))
    assert made["tails.weighted_alpha"].value == pytest.approx(np.mean([laws[i].alpha * top[i] for i in (0, 1)]))
    assert made["tails.log_alpha_norm"].value == pytest.approx(np.mean(norms))
    assert made["tails.distance"].value == pytest.approx(np.mean([law.distance for law in laws]))


def test_a_narrow_network_has_no_tails_and_says_why():
    tails = workspace_of(perceptron(0)).get(SpectralTails)
    assert isinstance(tails, Absent)
    assert "eigenvalues" in tails.reason
