"""Conditional mutual information: 1 for the gap itself, 0 for noise and for what knobs settle, pairs by hand."""

from __future__ import annotations

import itertools
import math
from collections import Counter

import numpy as np
import polars as pl
import pytest

from memspace.judging.information import Information, information
from memspace.value import Absent
from tests.judging.made import correlated, design, grid, table


def _judged(networks: pl.DataFrame, levels: list[int], **options: int) -> Information:
    result = information(networks, "m", design(levels), **options)
    assert isinstance(result, Information)
    return result


def _ratio(gap: list[float], m: list[float], u: list[tuple[int, ...]]) -> float:
    """I(V_m; V_g | U) / H(V_g | U) over ordered pairs, counted one by one."""
    joint: Counter[tuple[object, int, int]] = Counter()
    for i, j in itertools.permutations(range(len(gap)), 2):
        joint[(u[i], u[j]), int(m[i] > m[j]), int(gap[i] > gap[j])] += 1
    total = sum(joint.values())
    cell: Counter[object] = Counter()
    one: Counter[object] = Counter()
    other: Counter[object] = Counter()
    for (c, a, b), n in joint.items():
        cell[c] += n
        one[c, a] += n
        other[c, b] += n
    shared = sum(n / total * math.log(n * cell[c] / (one[c, a] * other[c, b])) for (c, a, b), n in joint.items())
    return shared / -sum(n / total * math.log(n / cell[c]) for (c, _), n in other.items())


def test_pairs_counted_one_by_one() -> None:
    rng = np.random.default_rng(0)
    knobs = grid([3, 2, 2], 2)
    gap, m = correlated(rng, 12, 0.6, 2, 0.5).T
    result = _judged(table(knobs, gap, m=m), [3, 2, 2])
    ratios = {}
    for size in range(3):
        for chosen in itertools.combinations(("k0", "k1", "k2"), size):
            u = [tuple(int(knobs[k][i]) for k in chosen) for i in range(24)]
            ratios[chosen] = _ratio(list(gap), list(m), u)
    assert result.value.value == pytest.approx(min(ratios.values()), abs=1e-10)
    assert ratios[result.given] == pytest.approx(min(ratios.values()), abs=1e-10)
    alone = _judged(table(knobs, gap, m=m), [3, 2, 2], most=0)
    assert alone.value.value == pytest.approx(ratios[()], abs=1e-10)
    assert alone.given == ()


def test_the_gap_itself_tells_all() -> None:
    """1, and at least the information of the share of 12 disjoint pairs that may be in order."""
    rng = np.random.default_rng(1)
    gap = rng.standard_normal(48)
    result = _judged(table(grid([4, 3, 2], 2), gap, m=-np.exp(gap)), [4, 3, 2])
    assert result.value.value == 1
    share = 0.025 ** (1 / 12)
    bits = -(share * math.log2(share) + (1 - share) * math.log2(1 - share))
    assert result.value.interval == (pytest.approx(1 - bits), 1.0)
    assert result.p == 1 / 101


def test_what_a_knob_settles_tells_nothing() -> None:
    rng = np.random.default_rng(2)
    knobs = grid([4, 3, 2], 2)
    gap = 3.0 * knobs["k0"] + rng.standard_normal(48)
    result = _judged(table(knobs, gap, m=knobs["k0"] ** 2), [4, 3, 2])
    assert result.value.value == 0
    assert result.value.interval is None
    assert "k0" in result.given
    assert result.p == 1


def test_noise_tells_what_chance_does() -> None:
    """Over 40 tables p is below 0.1 in 10% and three standard errors of 4.7% at most, and K near its mean by chance."""
    rng = np.random.default_rng(3)
    results = []
    for _ in range(40):
        gap, m = correlated(rng, 12, 0.0, 2, 0.6).T
        results.append(_judged(table(grid([4, 3], 2), gap, m=m), [4, 3], permutations=40, draws=2))
    assert np.mean([r.p < 0.1 for r in results]) < 0.1 + 3 * math.sqrt(0.09 / 40)
    off = np.array([r.value.value - r.by_chance for r in results])
    assert abs(off.mean()) < 4 * off.std() / math.sqrt(40)


def test_more_noise_tells_less() -> None:
    rng = np.random.default_rng(4)
    gap = rng.standard_normal(96)
    noise = rng.standard_normal(96)
    told = [
        _judged(table(grid([4, 4, 3], 2), gap, m=gap + s * noise), [4, 4, 3], permutations=20, draws=50)
        for s in (0.1, 0.5, 2.0)
    ]
    values = [t.value.value for t in told]
    assert values == sorted(values, reverse=True)
    for t in told:
        assert t.value.interval is not None
        assert t.value.interval[0] <= t.value.value <= t.value.interval[1]


def test_seeds_of_unequal_number_stay_together_as_far_as_they_can() -> None:
    rng = np.random.default_rng(5)
    knobs = grid([5, 4], 3)
    gap, m = correlated(rng, 20, 0.8, 3, 0.9).T
    networks = table(knobs, gap, m=m).filter(pl.Series(rng.random(60) < 0.8))
    result = _judged(networks, [5, 4], permutations=50)
    assert result.by_chance < result.value.value
    assert result.p == 1 / 51


def test_a_gap_that_knobs_settle_leaves_nothing_to_tell() -> None:
    knobs = grid([10])
    result = information(table(knobs, np.arange(10.0), m=np.arange(10.0) ** 2), "m", design([10]), most=1)
    assert isinstance(result, Information)  # given no knob at all it tells everything
    assert result.given == ()
    assert result.value.value == 1
    assert isinstance(information(table(knobs, np.arange(10.0), m=np.ones(10)), "m", design([10])), Absent)
