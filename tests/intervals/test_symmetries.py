"""What intervals owe to symmetry: a difference turned round, a ratio turned over, samples that are copies."""

from __future__ import annotations

import math

import numpy as np
import pytest

from memspace.intervals import margin, of_change, of_difference, of_independent_ratio, of_mean, of_ratio


@pytest.mark.parametrize(("first", "n", "second", "m"), [(0.9, 40, 0.6, 25), (1.0, 12, 0.3, 30), (0.05, 60, 0.1, 20)])
def test_a_difference_turned_round_has_its_interval_turned_round(first, n, second, m):
    one, other = of_difference(first, n, second, m).ends, of_difference(second, m, first, n).ends
    assert one == pytest.approx((-other[1], -other[0]), rel=1e-12)


def test_the_interval_of_a_difference_covers():
    rng = np.random.default_rng(0)
    inside, trials = 0, 2000
    for a, b in zip(rng.binomial(30, 0.9, trials), rng.binomial(15, 0.5, trials), strict=True):
        low, high = of_difference(a / 30, 30, b / 15, 15).ends
        inside += low <= 0.4 <= high
    assert inside / trials >= 0.94  # at least 95%, known to 0.5%


def test_a_ratio_turned_over_has_its_interval_turned_over():
    one = of_independent_ratio(3.0, (2.5, 4.0), 1.2, (0.9, 1.3))
    other = of_independent_ratio(1.2, (0.9, 1.3), 3.0, (2.5, 4.0))
    assert one == pytest.approx((1 / other[1], 1 / other[0]), rel=1e-12)
    assert one[0] < 3.0 / 1.2 < one[1]


@pytest.mark.parametrize("copies", [1, 2, 7])
def test_copies_of_a_sample_count_once_where_they_are_one_group(copies):
    x = np.random.default_rng(1).exponential(size=25)
    alone = of_mean(x).ends
    assert of_mean(np.repeat(x, copies), groups=np.repeat(np.arange(25), copies)).ends == pytest.approx(
        alone, rel=1e-12
    )


def test_a_change_at_another_level_is_wider():
    before, after = np.zeros(40), np.r_[np.ones(10), np.zeros(30)]
    narrow, wide = (of_change(before, after, level=level).ends for level in (0.95, 0.995))
    middle = sum(narrow) / 2
    assert sum(wide) / 2 == pytest.approx(middle)
    assert (wide[1] - middle) / (narrow[1] - middle) == pytest.approx(margin(1.0, level=0.995) / margin(1.0), rel=1e-9)


def test_fiellers_interval_is_exact_for_a_known_denominator_up_to_its_own_t():
    """Where what is divided by does not vary, it is Student's interval of the mean, divided."""
    x = np.random.default_rng(2).normal(5, 2, 6)
    low, high = of_ratio(x, np.full(6, 4.0)).ends
    half = margin(float(x.std(ddof=1)) / math.sqrt(6), 5)
    assert (low, high) == pytest.approx(((x.mean() - half) / 4, (x.mean() + half) / 4), rel=1e-9)


def test_the_ends_of_a_skewed_mean_are_where_halls_statistic_is_students_quantile():
    """T + γT²/3√n + γ²T³/27n + γ/6√n (Hall 1992, eq. 2.1), T = (mean − truth)/error, at both ends."""
    x = np.random.default_rng(3).exponential(size=40)
    n, error = len(x), float(x.std(ddof=1)) / math.sqrt(40)
    centred = x - x.mean()
    skewness = float((centred**3).mean() / (centred**2).mean() ** 1.5) * math.sqrt(n * (n - 1)) / (n - 2)
    found = []
    for end in of_mean(x).ends:
        t = (x.mean() - end) / error
        root = math.sqrt(n)
        found.append(t + skewness * t**2 / (3 * root) + skewness**2 * t**3 / (27 * n) + skewness / (6 * root))
    assert found == pytest.approx([margin(1.0, n - 1), -margin(1.0, n - 1)], rel=1e-9)


@pytest.mark.parametrize("sign", [1, -1])
def test_the_interval_of_a_skewed_mean_leans_to_its_tail(sign):
    """Misses of an exponential sample fall on both sides alike; Student's own are nearly all below the mean."""
    rng = np.random.default_rng(3)
    above = below = 0
    for _ in range(3000):
        low, high = of_mean(sign * rng.exponential(size=40)).ends
        above += low > sign
        below += high < sign
    misses = above + below
    assert misses / 3000 < 0.075
    tail = below if sign > 0 else above  # Student's: 6.2% and 0.6%
    assert tail / misses < 0.85
