"""The linear unit: Cover's count against enumeration, linear programming and the bits a unit stores at its peak."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest

from memspace.experiments.perceptron import linear_unit_bits, log2_dichotomies, realisable, separable


def _points(p: int, d: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    return rng.standard_normal((p, d)), rng.integers(0, 2, p)


def test_count_is_the_closed_form():
    for p in range(1, 12):
        for d in range(1, 8):
            count = 2 * sum(math.comb(p - 1, k) for k in range(d))
            assert 2 ** log2_dichotomies(p, d) == pytest.approx(count, rel=1e-9)
            assert realisable(p, d) == pytest.approx(min(1.0, count / 2**p), rel=1e-9)


@pytest.mark.parametrize("d", [1, 2, 5, 40, 1000])
def test_half_of_all_labellings_at_two_points_a_weight(d):
    assert realisable(2 * d, d) == pytest.approx(0.5, rel=1e-9)
    assert realisable(d, d) == pytest.approx(1, rel=1e-9)


def test_every_labelling_counted_by_linear_programming():
    """Exactly C(P, d) of the labellings of points in general position are realised, whichever the points."""
    for p, d in ((4, 2), (6, 3), (7, 2)):
        x, _ = _points(p, d, 3)
        found = sum(separable(x, np.array(y)) for y in itertools.product((0, 1), repeat=p))
        assert found == round(2 ** log2_dichotomies(p, d))


@pytest.mark.parametrize("p", [6, 10, 14])
def test_random_labellings_within_binomial_error(p):
    draws, d = 400, 5
    share = np.mean([separable(*_points(p, d, 100 + k)) for k in range(draws)])
    expected = realisable(p, d)
    assert abs(share - expected) < 4 * math.sqrt(expected * (1 - expected) / draws)


def test_bits_are_all_where_separable_and_the_likelihood_elsewhere():
    x = np.array([[1.0], [2.0], [3.0]])
    assert linear_unit_bits(x, np.array([1, 1, 1])) == 3
    # One weight, points all 1, k of n labels 1: the best unit says k/n to each.
    ones = np.ones((10, 1))
    y = np.array([1] * 3 + [0] * 7)
    entropy = -(0.3 * math.log2(0.3) + 0.7 * math.log2(0.7))
    assert linear_unit_bits(ones, y) == pytest.approx(10 * (1 - entropy), rel=1e-6)


def test_most_is_stored_just_below_two_points_a_weight():
    """Below: all that is offered. Far beyond: d/2 nats, as for any regular model. Between: Cover's at least."""
    d, draws = 20, 40
    stored = {}
    for load in (1.0, 1.5, 2.0, 8.0):
        p = round(load * d)
        stored[load] = np.array([linear_unit_bits(*_points(p, d, 500 + k)) for k in range(draws)]) / d
    mean = {load: float(v.mean()) for load, v in stored.items()}
    assert mean[1.0] == pytest.approx(1)
    assert mean[1.5] == max(mean.values())
    for load in (1.5, 2.0):
        error = load * math.sqrt(0.25 / draws)  # the share that is separable stores all; its binomial error
        assert load * realisable(round(load * d), d) - 4 * error < mean[load] <= load
    # Twice the gain in log likelihood is χ² with about d degrees of freedom; at 8 points a weight, roughly.
    assert mean[8.0] == pytest.approx(0.5 / math.log(2), rel=0.25)


def test_the_peak_nears_two_bits_a_weight():
    """A larger unit is full later: at 1.75 points a weight, 100 weights still store all but Cover's exceptions."""
    d, draws = 100, 12
    p = round(1.75 * d)
    stored = np.array([linear_unit_bits(*_points(p, d, 900 + k)) for k in range(draws)]) / d
    assert realisable(p, d) > 0.95
    assert float(stored.mean()) > 1.6
    assert float(np.median(stored)) == pytest.approx(1.75)
