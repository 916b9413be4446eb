"""Intervals that say 95% hold that often, over families, sizes and seeds; what cannot cover says so."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from memspace import intervals
from memspace.measurement import from_change, from_error, from_samples, from_share, stated
from memspace.value import Value


def margins(mean, spread):
    """Cross-entropy losses of a classifier whose margins are normal."""
    return lambda g, size: np.logaddexp(0, -g.normal(mean, spread, size))


def rare(share):
    """A share of large losses among small ones."""
    return lambda g, size: np.where(g.random(size) < share, g.exponential(3, size), g.exponential(0.02, size))


FAMILIES = {
    "normal": lambda g, size: g.normal(5, 1, size),
    "exponential": lambda g, size: g.exponential(1, size),
    "gamma": lambda g, size: g.gamma(0.3, 1, size),
    "log-normal": lambda g, size: g.lognormal(0, 1, size),
    "wide log-normal": lambda g, size: g.lognormal(0, 1.5, size),
    "losses": margins(2, 2),
    "losses of a good network": margins(5, 4),
    "rare large losses": rare(0.1),
}


def truth(draw):
    return float(draw(np.random.default_rng(10**6), 1_000_000).mean())


@pytest.mark.parametrize("n", [40, 68, 300])
@pytest.mark.parametrize("name", FAMILIES)
def test_the_interval_of_a_mean_covers_skewed_losses(name, n):
    draw, mean = FAMILIES[name], truth(FAMILIES[name])
    g = np.random.default_rng(n + len(name))
    ends = [intervals.of_mean(x, lower=0.0).ends for x in draw(g, (300, n))]
    hits = sum(low <= mean <= high for low, high in ends)
    # 0.90 is wanted; three standard errors of 300 repetitions are 0.05.
    assert hits / 300 >= 0.90 - 0.05 * (n < 100)
    assert min(low for low, _ in ends) >= 0


@pytest.mark.parametrize("n", [3, 5, 8, 20])
def test_the_interval_of_a_few_normal_repeats_covers(n):
    g = np.random.default_rng(n)
    hits = [low <= 0 <= high for low, high in (intervals.of_mean(x).ends for x in g.normal(0, 1, (1000, n)))]
    assert np.mean(hits) >= 0.929  # 0.95 less three standard errors


@pytest.mark.parametrize("name", ["losses of a good network", "very long tail", "rare large losses"])
def test_a_mean_that_cannot_be_covered_is_marked(name):
    """Wherever fewer than 90% of the intervals cover, most are marked, and few of the others miss."""
    draw = {**FAMILIES, "very long tail": margins(8, 4)}[name]
    mean, g = truth(draw), np.random.default_rng(len(name))
    found = [intervals.of_mean(x, lower=0.0) for x in draw(g, (600, 20))]
    silent = [not f.doubt and not f.ends[0] <= mean <= f.ends[1] for f in found]
    assert np.mean(silent) <= 0.1 + 0.15 * (name == "rare large losses")  # nine samples of twenty hold none of the rare


def test_a_sample_too_small_for_losses_says_so():
    m = from_samples("loss", [0.1, 0.4, 0.2], "nats", "mean", lower=0.0)
    assert not m.reliable
    assert "too few" in m.note
    assert from_samples("seeds", [0.1, 0.4, 0.2], "1", "mean").reliable


def test_equal_samples_are_no_certainty():
    m = from_samples("loss", [0.5] * 30, "nats", "mean")
    assert m.interval == (0.5, 0.5)
    assert not m.reliable
    assert "equal" in m.note
    assert from_samples("one", [0.5], "nats", "mean").interval is None
    assert math.isnan(from_samples("none", [], "nats", "mean").value)


@pytest.mark.parametrize("p", [0.5, 0.9, 0.97, 0.99, 0.999, 1.0])
@pytest.mark.parametrize("n", [7, 58, 400])
def test_the_interval_of_a_share_covers_exactly(p, n):
    """Summed over all outcomes, without a draw."""
    cover = sum(
        stats.binom.pmf(k, n, p) for k in range(n + 1) for e in [intervals.of_share(k, n).ends] if e[0] <= p <= e[1]
    )
    assert cover >= 0.95 - 1e-9


def test_all_right_is_not_certainty():
    m = from_share("accuracy", [1] * 50, "share right")
    assert m.value == 1
    assert m.interval[1] == 1
    assert 0.9 < m.interval[0] < 0.95
    assert math.isclose(m.interval[0], 0.025 ** (1 / 50))


@pytest.mark.parametrize(("gain", "loss"), [(0.0, 0.0), (0.02, 0.0), (0.02, 0.02), (0.1, 0.03), (0.3, 0.3)])
@pytest.mark.parametrize("n", [40, 200])
def test_the_interval_of_a_paired_change_covers(gain, loss, n):
    g = np.random.default_rng(n)
    hits = 0
    for _ in range(500):
        u = g.random(n)
        before, after = (u < loss) | (u > 0.7), (u < gain + loss) & (u >= loss) | (u > 0.7)
        low, high = intervals.of_change(before, after).ends
        hits += low <= gain - loss <= high and low < high
    assert hits / 500 >= 0.92  # 0.95 less three standard errors


@pytest.mark.parametrize("seed", range(3))
def test_positions_of_one_sequence_count_as_one_draw(seed):
    g = np.random.default_rng(seed)
    groups = np.repeat(np.arange(60), 20)
    hits = {"share": 0, "change": 0, "mean": 0}
    for _ in range(120):
        p = np.repeat(g.beta(2, 1, 60), 20)  # sequences differ in how hard they are
        q = np.repeat(g.beta(2, 1, 60), 20)
        before, after = g.random(1200) < p, g.random(1200) < q
        loss = g.exponential(1, 1200) * p
        for key, found, mean in (
            ("share", intervals.of_grouped_share(before, groups), 2 / 3),
            ("change", intervals.of_change(before, after, groups=groups), 0.0),
            ("mean", intervals.of_mean(loss, groups=groups, lower=0.0), 2 / 3),
        ):
            hits[key] += found.ends[0] <= mean <= found.ends[1]
    assert min(hits.values()) / 120 >= 0.87  # 0.95 less three standard errors; 0.6 as 1,200 independent positions


def test_sequences_all_right_count_once_each():
    m = from_share("accuracy", [1] * 100, "share right", groups=np.repeat(np.arange(5), 20))
    assert m.interval[0] < 0.5


@pytest.mark.parametrize("n", [10, 60])
def test_fieller_covers_a_ratio(n):
    g = np.random.default_rng(n)
    hits = 0
    for _ in range(600):
        b = g.exponential(1, n) + 1
        a = 3 * b + g.normal(0, 2, n)
        low, high = intervals.of_ratio(a, b).ends
        hits += low <= 3 <= high
    assert hits / 600 >= 0.92
    m = stated("ratio", Value.ratio([1.0, 2.0, 3.0], [1.0, -1.0, 0.1]), "1", "ratio")
    assert m.interval is None
    assert not m.reliable


def test_an_error_from_few_draws_uses_its_degrees_of_freedom():
    assert math.isclose(intervals.margin(1.0), 1.959964, rel_tol=1e-6)
    assert math.isclose(intervals.margin(1.0, 3), 3.182446, rel_tol=1e-6)
    m = from_error("x", 1.0, 0.5, "nats", "four probes", 4, df=3, lower=0.0)
    assert m.interval == (0.0, 1 + 0.5 * intervals.margin(1.0, 3))
    assert not from_error("x", 1.0, math.nan, "nats", "how", 4).reliable
    assert not from_error("x", 1.0, 0.1, "nats", "how", 1, df=0).reliable


def test_a_change_of_nothing_has_a_width():
    m = from_change("change", [1, 1, 0], [1, 1, 0], "paired")
    assert m.value == 0
    assert m.interval[0] < 0 < m.interval[1]
