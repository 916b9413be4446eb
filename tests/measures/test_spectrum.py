"""Readings of known spectra."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from memspace.measures.complexity import LN2, description_bits, information_bits
from memspace.measures.spectrum import spectrum_summary
from memspace.metric.density import Density
from memspace.metric.implicit import Implicit
from memspace.metric.spectral import Dense
from memspace.metric.trace import hutchinson, xtrace


@pytest.mark.parametrize("rank", [1, 3, 40])
def test_a_flat_spectrum_has_its_rank(rank: int) -> None:
    s = spectrum_summary(torch.full((rank,), 0.5), 100)
    assert s.largest == 0.5
    assert s.trace == pytest.approx(0.5 * rank)
    assert s.effective_rank == pytest.approx(rank)
    assert s.participation == pytest.approx(rank)
    assert s.flat == pytest.approx(1 - rank / 100)


def test_a_geometric_spectrum() -> None:
    s = spectrum_summary(0.5 ** torch.arange(60, dtype=torch.float64), 60)
    assert s.trace == pytest.approx(2.0)
    assert s.effective_rank == pytest.approx(math.exp(2 * math.log(2)), rel=1e-6)
    assert s.participation == pytest.approx(4 / (4 / 3), rel=1e-6)
    assert s.flat == pytest.approx(1 - 20 / 60)  # 2^-19 is the last above 1e-6


def test_the_spectrum_of_a_network_that_is_sure_does_not_underflow() -> None:
    s = spectrum_summary(torch.full((4,), 1e-200, dtype=torch.float64), 8)
    assert s.participation == pytest.approx(4)
    assert s.effective_rank == pytest.approx(4)


def test_empty_zero_and_slightly_negative_spectra() -> None:
    for values in (torch.zeros(0), torch.zeros(5), torch.full((3,), -1e-12)):
        s = spectrum_summary(values, 7)
        assert (s.largest, s.trace, s.effective_rank, s.participation, s.flat) == (0, 0, 0, 0, 1)


@settings(max_examples=50, deadline=None)
@given(st.lists(st.floats(1e-6, 1e6), min_size=1, max_size=30), st.floats(1e-3, 1e3))
def test_ranks_are_bounded_and_free_of_scale(values: list[float], scale: float) -> None:
    v = torch.tensor(values, dtype=torch.float64)
    a, b = spectrum_summary(v, 50), spectrum_summary(v * scale, 50)
    assert 1 - 1e-9 <= a.participation <= a.effective_rank * (1 + 1e-9) <= len(values) * (1 + 1e-9)
    assert b.effective_rank == pytest.approx(a.effective_rank, rel=1e-6)
    assert b.participation == pytest.approx(a.participation, rel=1e-6)
    assert 0 <= a.flat <= 1


def test_information_of_known_eigenvalues() -> None:
    metric = Dense.of(torch.diag(torch.tensor([3.0, 1.0, 0.0], dtype=torch.float64)), "exact")
    assert information_bits(metric, 1.0) == pytest.approx(0.5 * (2 + 1 + 0))


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("decay", [0.1, 3.0])
def test_the_description_of_a_linear_model_is_its_evidence(seed: int, decay: float) -> None:
    """Linear regression, where the Laplace code is exact: −log₂ p(y), y ~ N(0, X Xᵀ/α + σ²I), at the mode."""
    g = torch.Generator().manual_seed(seed)
    n, p, sigma = 20, 4, 0.5
    x = torch.randn(n, p, generator=g, dtype=torch.float64)
    y = x @ torch.randn(p, generator=g, dtype=torch.float64) + sigma * torch.randn(n, generator=g, dtype=torch.float64)
    mode = torch.linalg.solve(x.T @ x / sigma**2 + decay * torch.eye(p).double(), x.T @ y / sigma**2)
    loss = -float(torch.distributions.Normal(x @ mode, sigma).log_prob(y).mean())
    metric = Dense.of(x.T @ x / sigma**2 / n, "exact", 0.0)
    covariance = x @ x.T / decay + sigma**2 * torch.eye(n).double()
    evidence = -float(torch.distributions.MultivariateNormal(torch.zeros(n).double(), covariance).log_prob(y)) / LN2
    assert sum(description_bits(loss, n, mode, metric, decay / n)) == pytest.approx(evidence, rel=1e-9)


@pytest.mark.parametrize("probes", [2, 3, 6])
def test_the_band_of_a_density_is_students(probes: int) -> None:
    """Probe k finds the share s_k of its mass above the level: the mean count ± t(probes − 1) standard errors."""
    share = torch.linspace(0.4, 0.6, probes, dtype=torch.float64)
    nodes, weights = torch.tensor([0.0, 1.0]).double(), [torch.stack([1 - s, s]) for s in share]
    band = Density((nodes,) * probes, tuple(weights), 100).cumulative(torch.tensor([0.5]))
    error = 100 * float(share.std()) / math.sqrt(probes)
    half = float(stats.t.ppf(0.975, probes - 1)) * error
    assert float(band.high[0]) == pytest.approx(min(100, 50 + half))
    assert float(band.low[0]) == pytest.approx(max(0, 50 - half))


@pytest.mark.parametrize("estimate", ["hutchinson", "xtrace", "lanczos"])
def test_the_interval_of_a_trace_from_few_probes_covers(estimate: str) -> None:
    """Four probes: 1.96 standard errors covered 0.88."""
    g = torch.Generator().manual_seed(7)
    root = torch.randn(30, 30, generator=g, dtype=torch.float64) * torch.linspace(0.2, 2, 30).double()
    matrix, draws, held = root @ root.T, 200, 0
    for seed in range(draws):
        generator = torch.Generator().manual_seed(seed)
        if estimate == "lanczos":
            found = Implicit(lambda v: v @ matrix, 30, probes=4, seed=seed).trace(lambda x: x)
        elif estimate == "xtrace":
            found = xtrace(lambda v: v @ matrix, 30, 20, generator)
        else:
            found = hutchinson(lambda v: v @ matrix, 30, 4, generator)
        low, high = found.interval
        held += low <= float(matrix.trace()) <= high
    assert held / draws >= 0.95 - 3 * (0.95 * 0.05 / draws) ** 0.5


def test_the_seed_of_an_implicit_metric_draws_its_probes() -> None:
    matrix = torch.diag(torch.linspace(1, 2, 6).double()) + 0.3
    first, again, other = (Implicit(lambda v: v @ matrix, 6, probes=2, seed=s).trace().value for s in (0, 0, 1))
    assert first == again != other
