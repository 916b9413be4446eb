"""Effects: their p-values are those of their intervals, and intervals hold as often as they say."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from scipy import stats

from memspace.claims.effects import ANGLE, PLAIN, PORTION, REDUCTION, LeastEffect, ShareEffect, StudentEffect, mean_of
from memspace.value import Absent

SCALES = [ANGLE, PLAIN, REDUCTION]
values = st.floats(-0.95, 0.95)
students = st.builds(
    StudentEffect, values, st.floats(0.01, 0.5), st.floats(2, 50), st.integers(5, 60), st.sampled_from(SCALES)
)
shares = st.integers(1, 60).flatmap(lambda n: st.builds(ShareEffect, st.integers(0, n), st.just(n)))
least = st.lists(students, min_size=1, max_size=4).map(lambda e: LeastEffect(dict(enumerate(e))))


@settings(max_examples=200, deadline=None)
@example(ShareEffect(0, 1), -0.5)
@example(ShareEffect(3, 3), 1.5)
@given(st.one_of(students, shares, least), st.floats(-0.99, 0.99))
def test_an_interval_lies_beyond_a_bound_exactly_where_the_p_value_is_small(effect, bound) -> None:
    low, high = effect.ends()
    assert low <= effect.value <= high
    if not math.isclose(low, bound, abs_tol=1e-9):
        assert (low > bound) == (effect.not_above(bound) <= 0.025)
    if not math.isclose(high, bound, abs_tol=1e-9):
        assert (high < bound) == (effect.not_below(bound) <= 0.025)


@settings(max_examples=50, deadline=None)
@given(st.one_of(students, shares, least))
def test_a_higher_level_gives_a_wider_interval(effect) -> None:
    (low, high), (lower, higher) = effect.ends(0.9), effect.ends(0.99)
    assert lower <= low
    assert high <= higher


@pytest.mark.parametrize("scale", SCALES, ids=lambda s: s.name)
def test_slopes_are_the_derivatives_of_their_scales(scale) -> None:
    for v in (-0.7, 0.0, 0.3, 0.9):
        slope = (scale.to(v + 1e-6) - scale.to(v - 1e-6)) / 2e-6
        assert scale.slope(v) == pytest.approx(slope, rel=1e-6)
        assert scale.back(scale.to(v)) == pytest.approx(v, abs=1e-12)


def test_a_sample_without_a_spread_carries_no_interval() -> None:
    effect = StudentEffect(0.3, 0.0, 4, 5)
    assert effect.ends() is None
    assert effect.not_above(-1) == effect.not_below(1) == 1
    assert not effect.stated().reliable
    assert ShareEffect(0, 0).ends() is None


def test_the_least_of_several_covers_the_least_and_is_sure_only_where_all_are() -> None:
    """Three means at 0, 0 and 1, drawn 2,000 times: the interval misses the least, 0, in at most 5%."""
    generator = np.random.default_rng(0)
    missed, sure = 0, 0
    for _ in range(2000):
        drawn = np.array([0.0, 0.0, 1.0]) + generator.standard_normal(3) * 0.2
        effect = LeastEffect({str(k): StudentEffect(float(v), 0.2, 1000, 30) for k, v in enumerate(drawn)})
        low, high = effect.ends()
        missed += not low <= 0 <= high
        sure += low > 0
    assert stats.binomtest(missed, 2000, 0.05, alternative="greater").pvalue > 1e-3
    assert stats.binomtest(sure, 2000, 0.025, alternative="greater").pvalue > 1e-3
    assert effect.least in ("0", "1")


def test_the_mean_of_families_has_the_error_of_their_mean() -> None:
    mean = mean_of([StudentEffect(0.2, 0.3, 9, 10), StudentEffect(0.6, 0.4, 9, 10)])
    assert mean.value == pytest.approx(0.4)
    assert mean.error == pytest.approx(0.25)
    assert mean.n == 20
    assert mean.df == pytest.approx((0.09 + 0.16) ** 2 / ((0.09**2 + 0.16**2) / 9))  # Satterthwaite
    angles = [StudentEffect(v, 0.1, 20, 21, ANGLE) for v in (0.5, 0.5)]
    assert mean_of(angles).error == pytest.approx(0.1 / math.sqrt(2))


def test_shares_are_added_up_and_parts_are_averaged() -> None:
    assert mean_of([ShareEffect(3, 4), ShareEffect(5, 16)]) == ShareEffect(8, 20)
    two = [LeastEffect({"a": StudentEffect(v, 0.1, 9, 10), "b": StudentEffect(1.0, 0.1, 9, 10)}) for v in (0.1, 0.3)]
    assert mean_of(two).value == pytest.approx(0.2)
    assert mean_of(two).least == "a"


def test_a_family_in_which_every_try_came_out_is_averaged_with_the_others() -> None:
    others = [StudentEffect(0.9, 0.05, 4, 5, PORTION), StudentEffect(0.7, 0.05, 4, 5, PORTION)]
    mean = mean_of([ShareEffect(5, 5), *others])
    assert isinstance(mean, StudentEffect)
    assert mean.n == 15
    assert mean.value == pytest.approx((1 + 0.9 + 0.7) / 3)
    assert mean.error > math.hypot(0.05, 0.05) / 3  # five of five leave a doubt of their own
    low, high = mean.ends() or (math.nan, math.nan)
    assert 0.7 < low < mean.value < high <= 1


def test_an_interval_of_a_share_stays_between_0_and_1() -> None:
    assert StudentEffect(0.967, 0.04, 4, 5, PORTION).ends() == (pytest.approx(0.967 - 0.04 * 2.776, abs=1e-3), 1.0)


def test_what_is_absent_is_left_out_and_said() -> None:
    absent = Absent("too few", "train more")
    assert mean_of([absent, absent]) is absent
    assert mean_of([absent, ShareEffect(1, 2)]).note.startswith("without 1 of 2 families")
