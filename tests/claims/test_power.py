"""Power calculations: known answers, and the share of simulated experiments that decide."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from memspace.claims.power import SampleSize, _sd_of_tau, power_of, units_for
from memspace.errors import SettingsError

DRAWS = 4000


@pytest.mark.parametrize(
    ("kind", "effect", "threshold", "units"),
    [("mean", 0.5, 0.0, 34), ("mean", -0.5, 0.0, 34), ("correlation", 0.3, 0.0, 85)],
)
def test_sample_sizes_of_textbooks(kind: str, effect: float, threshold: float, units: int) -> None:
    assert units_for(SampleSize(kind, 2, effect, 0.8), threshold) == units


def test_the_sign_test_of_the_falsifier_has_the_power_that_was_planned() -> None:
    assert power_of(SampleSize("share", 60, 0.68, 0.5), 0.5) == pytest.approx(0.74, abs=0.005)
    assert power_of(SampleSize("share", 60, 0.32, 0.5), 0.5) == pytest.approx(0.74, abs=0.005)


def _within(hits: int, power: float) -> bool:
    return bool(stats.binomtest(hits, DRAWS, power).pvalue > 1e-3)


@pytest.mark.parametrize(("units", "effect", "threshold"), [(12, 0.8, 0.0), (30, 0.9, 0.4), (20, -0.6, 0.0)])
def test_means(units: int, effect: float, threshold: float) -> None:
    x = effect + np.random.default_rng(1).standard_normal((DRAWS, units))
    side = 1 if effect > threshold else -1
    t = side * (x.mean(1) - threshold) / (x.std(1, ddof=1) / math.sqrt(units))
    hits = int((t > stats.t.ppf(0.975, units - 1)).sum())
    assert _within(hits, power_of(SampleSize("mean", units, effect, 0.5), threshold))


@pytest.mark.parametrize(("units", "effect", "threshold"), [(40, 0.7, 0.5), (40, 0.25, 0.5), (25, 0.95, 0.6)])
def test_shares(units: int, effect: float, threshold: float) -> None:
    hits = np.random.default_rng(2).binomial(units, effect, DRAWS)
    ends = {k: stats.binomtest(int(k), units).proportion_ci() for k in np.unique(hits)}
    beyond = sum(ends[k].low > threshold if effect > threshold else ends[k].high < threshold for k in hits)
    assert _within(beyond, power_of(SampleSize("share", units, effect, 0.5), threshold))


def _taus(units: int, tau: float) -> np.ndarray:
    """Kendall's τ of many samples of normal pairs."""
    rho = math.sin(math.pi / 2 * tau)
    x, noise = np.random.default_rng(3).standard_normal((2, DRAWS, units))
    y = rho * x + math.sqrt(1 - rho**2) * noise
    i, j = np.triu_indices(units, 1)
    return np.mean(np.sign(x[:, i] - x[:, j]) * np.sign(y[:, i] - y[:, j]), axis=1)


@pytest.mark.parametrize(("units", "effect", "threshold"), [(30, 0.3, 0.0), (24, -0.4, 0.0), (40, 0.5, 0.2)])
def test_kendalls_tau(units: int, effect: float, threshold: float) -> None:
    """The variance is exact (Esscher 1924); that τ is normal is not quite so at such sizes."""
    taus = _taus(units, effect)
    assert taus.mean() == pytest.approx(effect, abs=4 * taus.std() / math.sqrt(DRAWS))
    assert taus.std() == pytest.approx(_sd_of_tau(units, effect), rel=0.04)
    side = 1 if effect > threshold else -1
    decided = np.mean([side * (t - threshold) > 1.96 * _sd_of_tau(units, t) for t in taus])
    assert power_of(SampleSize("kendall", units, effect, 0.5), threshold) == pytest.approx(decided, abs=0.02)


def test_the_spread_of_tau_without_a_relation() -> None:
    for n in (5, 50, 243):
        assert _sd_of_tau(n, 0.0) == pytest.approx(math.sqrt(2 * (2 * n + 5) / (9 * n * (n - 1))))


def test_a_stated_power_that_is_not_that_of_the_sample_is_refused() -> None:
    SampleSize("share", 60, 0.68, 0.74).check(0.5, 0.05)
    with pytest.raises(SettingsError, match=r"60 units have a power of 0\.74, not 0\.8 as stated"):
        SampleSize("share", 60, 0.68, 0.80).check(0.5, 0.05)
    with pytest.raises(SettingsError, match="no sample is large enough"):
        units_for(SampleSize("mean", 2, 1e-6, 0.8), 0.0)
    with pytest.raises(SettingsError, match="kind"):
        SampleSize("median", 60, 0.68, 0.80)
