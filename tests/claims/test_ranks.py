"""Rank relations against scipy's, their errors against repetition."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from memspace.claims.ranks import (
    dyadic_error,
    granulated,
    kendall,
    mean_of_pairs,
    partial_correlation,
    percentiles,
    tau_effect,
)

columns = st.integers(3, 12).flatmap(
    lambda n: st.tuples(*[st.lists(st.integers(0, 4), min_size=n, max_size=n).map(np.array)] * 2)
)


def everything(n: int) -> np.ndarray:
    return np.ones((n, n), dtype=bool)


@settings(max_examples=100, deadline=None)
@given(columns)
def test_tau_of_all_pairs_is_that_of_scipy(xy) -> None:
    x, y = (np.asarray(v, dtype=float) for v in xy)
    made = kendall(x, y, everything(len(x)), np.arange(len(x)))
    if np.ptp(x) == 0 or np.ptp(y) == 0:
        assert made is None
        return
    assert made.value == pytest.approx(stats.kendalltau(x, y).statistic, abs=1e-12)
    assert made.influence.sum() == pytest.approx(0, abs=1e-12)


def test_granulated_is_the_mean_over_cells() -> None:
    generator = np.random.default_rng(0)
    x, y = generator.standard_normal((2, 12))
    cells = [np.arange(4), np.arange(4, 9), np.arange(9, 12)]
    units = np.repeat(np.arange(6), 2)
    taus = [stats.kendalltau(x[at], y[at]).statistic for at in cells]
    made = granulated(x, y, cells, units)
    assert made.value == pytest.approx(np.mean(taus))
    assert made.influence.shape == (6, 6)
    assert made.influence.sum() == pytest.approx(0, abs=1e-12)
    assert mean_of_pairs([made, made]).value == made.value
    assert granulated(np.zeros(12), y, cells, units) is None


def test_the_error_of_independent_pairs_and_of_pairs_of_one_unit() -> None:
    u = np.zeros((4, 4))
    u[0, 1] = u[1, 0] = 0.5  # both orders: a contribution of 1
    u[2, 3] = u[3, 2] = -0.5
    assert dyadic_error(u) == pytest.approx(np.sqrt(2))  # 1² + (−1)²
    u[0, 2] = u[2, 0] = 0.5  # shares unit 0 with the first pair and unit 2 with the second
    assert dyadic_error(u) == pytest.approx(np.sqrt(1 + 1 + 1 + 2 * 1 - 2 * 1))


@pytest.mark.parametrize(("m", "seeds", "rho"), [(20, 2, 0.0), (40, 1, 0.6)])
def test_intervals_of_tau_hold_as_often_as_they_say(m: int, seeds: int, rho: float) -> None:
    """Units of correlated normal numbers; τ = 2/π asin ρ where seeds add no noise."""
    generator, missed, tries = np.random.default_rng(m), 0, 600
    true = 2 / np.pi * np.arcsin(rho)
    units = np.repeat(np.arange(m), seeds)
    for _ in range(tries):
        x = generator.standard_normal(m)
        y = rho * x + np.sqrt(1 - rho**2) * generator.standard_normal(m)
        noise = 0.2 * generator.standard_normal((2, m * seeds)) if rho == 0 else np.zeros((2, m * seeds))
        low, high = tau_effect(kendall(x[units] + noise[0], y[units] + noise[1], everything(m * seeds), units)).ends()
        missed += not low <= true <= high
    assert stats.binomtest(missed, tries, 0.05).pvalue > 1e-3


def test_a_few_units_that_carry_an_average_are_few() -> None:
    """Three stars of a centre and twelve neighbours, two a knob: 39 units, of which three are in most pairs."""
    generator, missed, tries = np.random.default_rng(4), 0, 500
    units = np.arange(39)
    knobs = [[np.array([s, 3 + 12 * s + 2 * k, 4 + 12 * s + 2 * k]) for s in range(3)] for k in range(6)]
    for _ in range(tries):
        x, y = generator.standard_normal((2, 39))
        taus = [granulated(x, y, cells, units) for cells in knobs]
        effect = tau_effect(mean_of_pairs([tau for tau in taus if tau is not None]))
        low, high = effect.ends()
        missed += not low <= 0 <= high
    assert 2 < effect.df < 5
    assert effect.n == 39
    assert stats.binomtest(missed, tries, 0.06, alternative="greater").pvalue > 1e-3
    assert missed > 0.01 * tries


def test_a_tau_of_one_is_not_sure_to_be_one() -> None:
    x = np.arange(8.0)
    low, high = tau_effect(kendall(x, x, everything(8), np.arange(8))).ends()
    assert high == pytest.approx(1)
    assert low == pytest.approx(2 * stats.binomtest(8, 8).proportion_ci().low - 1)


@settings(max_examples=60, deadline=None)
@given(columns)
def test_percentiles_are_ranks_and_count_weights_as_copies(xy) -> None:
    x = np.asarray(xy[0], dtype=float)
    n = len(x)
    weights = np.asarray(xy[1], dtype=float)[None]
    plain = percentiles(np.ones((1, n)), x, everything(n))[0]
    assert plain == pytest.approx((stats.rankdata(x) - 0.5) / n - 0.5)
    copies = np.repeat(x, weights[0].astype(int))
    if len(copies):
        ranked = percentiles(weights, x, everything(n))[0]
        expected = (stats.rankdata(copies) - 0.5) / len(copies) - 0.5
        assert np.repeat(ranked, weights[0].astype(int)) == pytest.approx(expected)


def test_partial_correlation_is_that_of_residuals() -> None:
    generator = np.random.default_rng(5)
    z = generator.standard_normal((60, 2))
    x, y = (z @ generator.standard_normal(2) + generator.standard_normal(60) for _ in range(2))
    columns = np.stack([x, y, *z.T], axis=1)
    columns -= columns.mean(0)
    left = [v - columns[:, 2:] @ np.linalg.lstsq(columns[:, 2:], v, rcond=None)[0] for v in columns[:, :2].T]
    ones = np.ones((1, 60))
    assert partial_correlation(ones, columns[None])[0] == pytest.approx(np.corrcoef(*left)[0, 1])
    assert partial_correlation(ones, columns[None, :, :2])[0] == pytest.approx(np.corrcoef(x, y)[0, 1])
    columns[:, 0] = columns[:, 2]
    assert np.isnan(partial_correlation(ones, columns[None])[0])
