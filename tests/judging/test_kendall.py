"""Kendall's τ: permutations with known answers, ties, intervals that cover, chance that is chance."""

from __future__ import annotations

import itertools
import math

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from memspace.judging.design import JudgingDesign
from memspace.judging.kendall import block_sums, compare, kendall, pair_signs, quadratic
from memspace.judging.resampling import Correlation, Resamples
from memspace.value import Absent, Value
from tests.judging.made import correlated, design, grid, table


def _tau(result: Correlation | Absent) -> float:
    assert isinstance(result, Correlation)
    return result.value.value


def test_permutations_of_known_inversions() -> None:
    """τ = 1 − 2·inversions / pairs, for every permutation of five of eight places."""
    for order in itertools.islice(itertools.permutations(range(5)), 0, None, 7):
        values = [*order, 5, 6, 7]
        inversions = sum(a > b for a, b in itertools.combinations(values, 2))
        judged = kendall(table(grid([8]), range(8), m=values), "m", design([8]), draws=10)
        assert _tau(judged) == pytest.approx(1 - 2 * inversions / 28, abs=1e-12)


@given(st.lists(st.tuples(st.integers(0, 6), st.integers(0, 6)), min_size=8, max_size=40), st.integers(1, 3))
@settings(max_examples=60, deadline=None)
def test_ties_are_those_of_tau_b(rows: list[tuple[int, int]], seeds: int) -> None:
    units = len(rows)
    rng = np.random.default_rng(units)
    first, second = np.repeat(np.array(rows, float), seeds, axis=0).T
    second = second + rng.integers(0, 2, len(second))
    judged = kendall(table(grid([units], seeds), first, m=second), "m", design([units]), draws=2)
    expected = stats.kendalltau(first, second).statistic
    if math.isnan(expected):
        assert isinstance(judged, Absent)
    else:
        assert _tau(judged) == pytest.approx(expected, abs=1e-12)


def test_a_resample_is_the_table_with_configurations_repeated() -> None:
    """Copies of a configuration are not compared with each other; every pair of configurations c_k · c_l times."""
    rng = np.random.default_rng(3)
    unit = np.repeat(np.arange(5), [2, 1, 3, 2, 1])
    x, y = rng.integers(0, 4, (2, len(unit)))
    signs = pair_signs(x) * pair_signs(y)
    counts = np.array([[2, 0, 1, 3, 1]], np.float32)
    copies = [(u, copy) for u, c in enumerate(counts[0].astype(int)) for copy in range(c)]
    by_hand = 0.0
    for (u, i), (v, j) in itertools.product(copies, copies):
        if u != v or i == j:
            by_hand += signs[np.ix_(unit == u, unit == v)].sum()
    assert quadratic(counts, block_sums(signs, unit))[0] == by_hand


def test_infinite_values_rank_at_their_end() -> None:
    gap = np.arange(10.0)
    measure = np.where(gap == 9, np.inf, np.where(gap == 0, -np.inf, gap))
    judged = kendall(table(grid([10]), gap, m=measure), "m", design([10]))
    assert _tau(judged) == 1.0


def test_a_perfect_order_is_not_certain() -> None:
    """All ⌊12/2⌋ disjoint pairs in order: a share of at least 0.025^(1/6), so τ is at least twice that less one."""
    judged = kendall(table(grid([12]), np.arange(12.0), m=-np.arange(12.0)), "m", design([12]))
    assert isinstance(judged, Correlation)
    assert judged.value.value == -1
    assert judged.value.interval == (-1.0, pytest.approx(1 - 2 * 0.025 ** (1 / 6)))
    assert judged.p == 2.0**-5


@pytest.mark.parametrize(("units", "seeds", "rho"), [(15, 1, 0.0), (15, 1, 0.8), (40, 3, 0.0), (40, 3, 0.8)])
def test_intervals_cover_and_chance_is_chance(units: int, seeds: int, rho: float) -> None:
    """Over 200 tables the interval misses the expected τ in at most 10%: 5% and three standard errors of 1.5%."""
    rng = np.random.default_rng(units + int(100 * rho))
    tables = 200
    judged: list[Correlation] = []
    for _ in range(tables):
        gap, m = correlated(rng, units, rho, seeds, 0.7 if seeds > 1 else 1.0).T
        result = kendall(table(grid([units], seeds), gap, m=m), "m", design([units]), draws=200)
        assert isinstance(result, Correlation)
        judged.append(result)
    truth = float(np.mean([j.value.value for j in judged]))
    if rho == 0:
        assert abs(truth) < 4 * np.std([j.value.value for j in judged]) / math.sqrt(tables)
        truth = 0.0
        assert np.mean([j.p < 0.05 for j in judged]) < 0.05 + 3 * math.sqrt(0.05 * 0.95 / tables)
    elif seeds == 1:
        assert truth == pytest.approx(2 / math.pi * math.asin(rho), abs=4 * 0.2 / math.sqrt(tables))
    ends = [j.value.interval for j in judged]
    missed = np.mean([e is None or not e[0] <= truth <= e[1] for e in ends])
    assert missed < 0.05 + 3 * math.sqrt(0.05 * 0.95 / tables)


def test_seeds_of_one_configuration_are_no_new_evidence() -> None:
    """Five exact copies of each network leave the interval as wide as one copy, not √5 narrower."""
    rng = np.random.default_rng(0)
    gap, m = correlated(rng, 40, 0.5).T
    once = kendall(table(grid([40]), gap, m=m), "m", design([40]))
    five = kendall(table(grid([40], 5), np.repeat(gap, 5), m=np.repeat(m, 5)), "m", design([40]))
    assert isinstance(once, Correlation)
    assert isinstance(five, Correlation)
    assert five.value.value == pytest.approx(once.value.value, abs=1e-12)
    assert five.value.interval == pytest.approx(once.value.interval, abs=1e-6)
    assert five.p == pytest.approx(once.p, rel=1e-6)


def test_the_difference_of_two_measures_is_narrower_than_either() -> None:
    rng = np.random.default_rng(5)
    gap, m = correlated(rng, 60, 0.5).T
    near = m + 0.05 * rng.standard_normal(60)
    networks = table(grid([60]), gap, m=m, near=near, copy=np.exp(m), far=rng.standard_normal(60))
    d = design([60])
    alone, change = kendall(networks, "m", d), compare(networks, "m", "near", d)
    assert isinstance(alone, Correlation)
    assert isinstance(change, Value)
    assert change.interval is not None
    assert alone.value.interval is not None
    assert np.diff(change.interval)[0] < 0.5 * np.diff(alone.value.interval)[0]
    assert change.interval[0] <= change.value <= change.interval[1]
    assert isinstance(compare(networks, "m", "copy", d), Absent)
    better = compare(networks, "m", "far", d)
    assert isinstance(better, Value)
    assert better.interval is not None
    assert better.interval[0] > 0


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"m": [1.0] * 12}, "the same"),
        ({"m": [1.0, 2.0] + [math.nan] * 10}, "2 networks"),
        ({"test_loss": [0.1] * 12}, "gap is the same"),
        ({"k0": [0] * 6 + [1] * 6}, "2 configurations"),
    ],
)
def test_what_cannot_be_told_is_absent(change: dict[str, list[float]], reason: str) -> None:
    networks = table(grid([12]), np.arange(12.0), m=np.arange(12.0)).with_columns(
        **{k: pl.Series(v) for k, v in change.items()}
    )
    judged = kendall(networks, "m", design([12]))
    assert isinstance(judged, Absent)
    assert reason in judged.reason
    assert judged.remedy


def test_rows_without_the_measure_are_left_out() -> None:
    rng = np.random.default_rng(1)
    gap, m = correlated(rng, 30, 0.5).T
    holes = np.where(np.arange(30) % 3 == 0, np.nan, m)
    judged = kendall(table(grid([30]), gap, m=holes), "m", design([30]), draws=50)
    there = np.isfinite(holes)
    assert _tau(judged) == pytest.approx(stats.kendalltau(gap[there], m[there]).statistic, abs=1e-12)
    assert isinstance(judged, Correlation)
    assert judged.value.n == 20


def test_the_same_seed_draws_the_same() -> None:
    first, again, other = (Resamples.of(7, 20, s).counts for s in (0, 0, 1))
    assert (first == again).all()
    assert (first != other).any()
    assert (first[0] == 1).all()
    assert (first[1:8] == 1 - np.eye(7)).all()
    assert (first[8:].sum(1) == 7).all()


def test_a_thousand_networks_take_less_than_a_second_each() -> None:
    """Sixty measures of a thousand networks, a thousand draws each, in a minute: here one, on a busy machine."""
    rng = np.random.default_rng(0)
    gap, m = correlated(rng, 1000, 0.5).T
    networks = table(grid([1000]), gap, m=m)
    import time

    start = time.process_time()
    kendall(networks, "m", JudgingDesign(("k0",)))
    assert time.process_time() - start < 3
