"""Effective sample sizes and errors of chains whose autocorrelation is known."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from memspace.measures.predictors.chains import QuadraticPart
from memspace.measures.predictors.mixing import mixing


def _autoregressive(rho: float, chains: int, draws: int, seed: int) -> np.ndarray:
    generator = np.random.default_rng(seed)
    values = np.empty((chains, draws))
    values[:, 0] = generator.normal(size=chains)
    for k in range(1, draws):
        values[:, k] = rho * values[:, k - 1] + math.sqrt(1 - rho**2) * generator.normal(size=chains)
    return values


@pytest.mark.parametrize("rho", [0.0, 0.5, 0.9])
def test_the_effective_size_of_an_autoregressive_chain(rho: float) -> None:
    sizes = [mixing(_autoregressive(rho, 4, 2000, seed)).size for seed in range(10)]
    assert np.mean(sizes) == pytest.approx(8000 * (1 - rho) / (1 + rho), rel=0.12)


@pytest.mark.parametrize("rho", [0.0, 0.6])
def test_errors_of_a_mean_cover(rho: float) -> None:
    misses = [m.mean / m.error for m in (mixing(_autoregressive(rho, 3, 60, seed)) for seed in range(150))]
    assert float(np.std(misses)) == pytest.approx(1, abs=0.3)


def test_chains_that_disagree_are_seen() -> None:
    values = _autoregressive(0.2, 4, 200, 0)
    assert mixing(values).rhat < 1.02
    shifted = mixing(values + np.array([0, 0, 0, 3.0])[:, None])
    assert shifted.rhat > 1.5
    assert shifted.size < 20
    drifting = mixing(values + np.linspace(0, 5, 200))
    assert drifting.rhat > 1.5


def test_draws_that_do_not_move_have_no_error() -> None:
    still = mixing(np.ones((3, 10)))
    assert (still.mean, still.error, still.df, still.size) == (1.0, math.inf, 5, 1.0)
    assert math.isnan(still.rhat)


def test_the_reference_is_the_gaussian_of_its_precision() -> None:
    generator = torch.Generator().manual_seed(0)
    directions = torch.linalg.qr(torch.randn(7, 3, generator=generator, dtype=torch.float64)).Q.t()
    reference = QuadraticPart(0.5, directions, torch.tensor([4.0, 1.0, 0.0], dtype=torch.float64))
    precision = 0.5 * torch.eye(7, dtype=torch.float64) + directions.t() * reference.added @ directions
    x = torch.randn(2, 7, generator=generator, dtype=torch.float64)
    torch.testing.assert_close(reference.covariance(x), x @ torch.linalg.inv(precision))
    torch.testing.assert_close(reference.root(reference.root(x)), reference.covariance(x))
    torch.testing.assert_close(reference.energy(x), (x @ precision * x).sum(1) / 2)
    plain = QuadraticPart(0.5, directions[:0], reference.added[:0])
    torch.testing.assert_close(plain.covariance(x), 2 * x)
    torch.testing.assert_close(plain.energy(x), x.square().sum(1) / 4)
