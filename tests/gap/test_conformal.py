"""Intervals for networks of groups never seen: they hold at their level, and say where groups are too few."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binom

from memspace.errors import DataError
from memspace.gap.conformal import fewest_groups, interval_of, upper_quantile
from memspace.gap.coverage import coverage
from memspace.gap.domain import NetworkFacts
from memspace.gap.fit import fit_gap
from memspace.value import Absent, Value
from tests.gap.made import made_zoo

FACTS = NetworkFacts("categorical", 10)


@pytest.mark.parametrize(("level", "groups"), [(0.9, 9), (0.8, 4), (0.95, 19), (0.5, 1)])
def test_an_interval_is_finite_from_so_many_groups_on(level: float, groups: int) -> None:
    assert fewest_groups(level) == groups
    for count, finite in ((groups, True), (groups - 1, False)):
        if count:
            assert math.isfinite(upper_quantile([np.arange(3.0)] * count, level)) is finite


def test_with_one_network_a_group_it_is_the_rank_of_split_conformal() -> None:
    scores = np.random.default_rng(0).standard_normal(19)
    rank = math.ceil(0.9 * 20)
    assert upper_quantile([scores[[k]] for k in range(19)], 0.9) == np.sort(scores)[rank - 1]


@given(st.floats(-5, 5), st.floats(0.1, 3), st.integers(10, 20))
def test_equal_lines_give_an_interval_around_their_prediction(middle: float, spread: float, groups: int) -> None:
    scores = [np.full(2, 1.0 + 0.01 * k) for k in range(groups)]
    low, high = interval_of([middle] * groups, [spread] * groups, scores, 0.9)
    assert high - middle == pytest.approx(middle - low)
    assert spread <= high - middle <= spread * (1 + 0.01 * groups)


@pytest.mark.parametrize("heavy", [False, True])
def test_networks_of_a_group_never_seen_are_held_at_the_level(heavy: bool) -> None:
    """One network of each new group: independent draws, counted against the binomial law of 90% (and of 99.9%)."""
    held, draws = 0, 60
    for seed in range(draws):
        table = made_zoo(seed, 13, 6, between=0.2, heavy=heavy)
        new = table.row(12 * 6, named=True)
        told = fit_gap(table.head(12 * 6)).predict(new, FACTS)
        low, high = told.gap_interval
        held += low <= new["test_loss"] - new["train_loss"] <= high
    assert held >= binom.ppf(0.001, draws, 0.9)
    assert held < draws  # intervals that hold everything would be no use: 0.98 ** 60 is 0.3, the seeds are fixed


def test_the_interval_follows_the_noise() -> None:
    def width(between: float) -> float:
        low, high = (
            fit_gap(made_zoo(3, between=between, within=between))
            .predict(
                {"generalisation.train_loss": 0.2, "generalisation.tic_gap": 1.0, "margins.mean": 0.0}
                | {"gradients.coherence": 0.0},
                FACTS,
            )
            .test_loss_interval
        )
        return high - low

    narrow, wide = width(0.02), width(0.2)
    assert 4 < wide / narrow < 25


def test_coverage_counts_groups_left_out_of_everything() -> None:
    covered = coverage(made_zoo(1, networks=5))
    assert isinstance(covered, Value)
    assert covered.n == 60
    assert covered.value > 0.8
    assert "12 values of block" in covered.how
    by_data = coverage(made_zoo(1, 16, networks=4), "data")
    assert isinstance(by_data, Value)
    assert by_data.value > 0.8
    inside = coverage(made_zoo(1, networks=5), only_reliable=True)
    assert isinstance(inside, Value)
    assert inside.n <= covered.n


def test_coverage_that_cannot_be_counted_says_why() -> None:
    one = coverage(made_zoo(0, 1))
    assert isinstance(one, Absent)
    assert "same block" in one.reason
    few = coverage(made_zoo(0, 3))
    assert isinstance(few, Absent)
    assert "nothing can be calibrated" in few.reason


def test_too_few_groups_are_infinite_and_not_reliable() -> None:
    told = fit_gap(made_zoo(0, 5)).predict(made_zoo(0, 5).row(0, named=True), FACTS)
    assert not told.reliable
    assert "5 groups are too few for an interval of 90%" in told.note
    assert told.to_dict()["gap_interval"][1] is None
    with pytest.raises(DataError, match="in 2 groups"):
        fit_gap(made_zoo(0, 2))
