"""Granulated τ: a constructed grid on which the raw correlation says the opposite, groups by hand, covering."""

from __future__ import annotations

import math

import numpy as np
import polars as pl
import pytest
from scipy import stats

from memspace.judging.granulated import Granulated, granulated, knob_groups
from memspace.judging.kendall import kendall
from memspace.judging.resampling import Correlation
from memspace.judging.tables import NetworkRows, rows_of
from memspace.value import Absent, Value
from tests.judging.made import correlated, design, grid, table


def _judged(networks: pl.DataFrame, levels: list[int], **options: str) -> Granulated:
    result = granulated(networks, "m", design(levels), **options)  # type: ignore[arg-type]
    assert isinstance(result, Granulated)
    return result


def test_the_raw_sign_and_the_granulated_are_opposite() -> None:
    """Simpson: within every group the measure falls with the gap, between the settings of the last knob it rises."""
    knobs = grid([3, 3, 4])
    gap = knobs["k0"] + 0.3 * knobs["k1"] + 20.0 * knobs["k2"]
    m = -knobs["k0"] - 0.3 * knobs["k1"] + 20.0 * knobs["k2"]
    networks, d = table(knobs, gap, m=m), design([3, 3, 4])
    raw, within = kendall(networks, "m", d), _judged(networks, [3, 3, 4])
    assert isinstance(raw, Correlation)
    assert raw.value.value > 0.5
    psi = {name: value.value for name, value in within.knobs.items() if isinstance(value, Value)}
    assert psi == {"k0": -1.0, "k1": -1.0, "k2": 1.0}
    assert within.psi.value.value == pytest.approx(-1 / 3)
    assert within.worst[0] == "k2"
    assert within.groups == {"k0": 12, "k1": 12, "k2": 9}


@pytest.mark.parametrize("seeds", ["pooled", "apart"])
def test_groups_are_those_found_by_hand(seeds: str) -> None:
    rng = np.random.default_rng(4)
    knobs = grid([4, 3], 2)
    gap, m = correlated(rng, 12, 0.4, 2, 0.6).T
    networks = table(knobs, gap, m=m).filter(pl.Series(rng.random(24) < 0.8))
    result = _judged(networks, [4, 3], seeds=seeds)
    psi = []
    for knob, other in (("k0", "k1"), ("k1", "k0")):
        by = [other, "seed"] if seeds == "apart" else [other]
        groups = [g for _, g in networks.group_by(by) if g[knob].n_unique() >= 3]
        psi.append(np.mean([stats.kendalltau(g["m"], g["test_loss"]).statistic for g in groups]))
        value = result.knobs[knob]
        assert isinstance(value, Value)
        assert value.value == pytest.approx(psi[-1], abs=1e-12)
        assert result.groups[knob] == len(groups)
    assert result.psi.value.value == pytest.approx(np.mean(psi), abs=1e-12)


def test_a_switch_is_judged_by_groups_of_two() -> None:
    rng = np.random.default_rng(0)
    knobs = grid([2, 5])
    gap = rng.standard_normal(10)
    m = np.where(knobs["k0"] == 0, gap, -gap)
    result = _judged(table(knobs, gap, m=m), [2, 5])
    pairs = list(zip(gap[:5], gap[5:], strict=True))
    expected = np.mean([np.sign(b - a) * np.sign(-b - a) for a, b in pairs])
    value = result.knobs["k0"]
    assert isinstance(value, Value)
    assert value.value == pytest.approx(expected)
    assert result.groups == {"k0": 5, "k1": 2}


def test_two_of_many_values_are_no_group() -> None:
    knobs = grid([4, 4])
    keep = (knobs["k1"] < 2) | (knobs["k0"] == 0)
    rows = rows_of(table(knobs, np.arange(16.0), m=np.arange(16.0) ** 2).filter(pl.Series(keep)), "m", design([4, 4]))
    assert isinstance(rows, NetworkRows)
    assert [len(g) for g in knob_groups(rows, 1)] == [4]
    assert [len(g) for g in knob_groups(rows, 0)] == [4, 4]


def test_without_groups_it_is_absent() -> None:
    rng = np.random.default_rng(0)
    knobs = {"k0": rng.permutation(20), "k1": rng.permutation(20), "seed": np.zeros(20, int)}
    result = granulated(table(knobs, rng.random(20), m=rng.random(20)), "m", design([20, 20]))
    assert isinstance(result, Absent)
    assert "one knob" in result.reason


def test_one_knob_alone_is_one_group() -> None:
    rng = np.random.default_rng(2)
    gap, m = correlated(rng, 25, 0.5).T
    networks = table(grid([25]), gap, m=m)
    raw, result = kendall(networks, "m", design([25])), _judged(networks, [25])
    assert isinstance(raw, Correlation)
    assert result.psi.value.value == pytest.approx(raw.value.value, abs=1e-12)
    assert result.psi.value.interval == pytest.approx(raw.value.interval, abs=0.1)
    assert isinstance(result.knobs["k0"], Value)


def test_a_perfect_order_is_not_certain() -> None:
    """Per group of four two disjoint pairs: 8 in all, and as many along the other knob."""
    result = _judged(table(grid([4, 4]), np.arange(16.0), m=np.arange(16.0)), [4, 4])
    assert result.psi.value.interval == (pytest.approx(2 * 0.025 ** (1 / 8) - 1), 1.0)
    assert result.psi.p == 2.0**-7


@pytest.mark.parametrize(("levels", "seeds", "rho"), [([5, 4, 3], 1, 0.0), ([5, 4, 3], 1, 0.7), ([6, 6], 3, 0.7)])
def test_intervals_cover_and_chance_is_chance(levels: list[int], seeds: int, rho: float) -> None:
    """Over 80 tables: misses and false alarms of at most 5% and three standard errors of 2.4%."""
    rng = np.random.default_rng(9)
    units, tables = int(np.prod(levels)), 80
    judged = []
    for _ in range(tables):
        gap, m = correlated(rng, units, rho, seeds, 0.7 if seeds > 1 else 1.0).T
        judged.append(_judged(table(grid(levels, seeds), gap, m=m), levels).psi)
    truth = float(np.mean([j.value.value for j in judged])) if rho else 0.0
    most = 0.05 + 3 * math.sqrt(0.05 * 0.95 / tables)
    ends = [j.value.interval for j in judged]
    assert np.mean([e is None or not e[0] <= truth <= e[1] for e in ends]) < most
    if rho == 0:
        assert np.mean([j.p < 0.05 for j in judged]) < most
