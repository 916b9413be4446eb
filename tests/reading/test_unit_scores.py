"""Scores of units against pairs counted by hand; intervals that cover; shuffles with a nominal family-wise rate."""

import numpy as np
import pytest
from scipy.stats import binom, norm

from memspace.reading.detectors import CHANCE, ExampleHalves, rotate_units, test_units
from memspace.reading.unit_scores import AreaScore, Chosen, OverlapScore

test_units.__test__ = False  # a function of the package, not a test


def rate_allowed(trials: int) -> tuple[float, float]:
    """Rates that a nominal test has in all but one of a thousand sets of trials."""
    low, high = binom.interval(0.999, trials, CHANCE)
    return float(low) / trials, float(high) / trials


def test_an_area_is_the_share_of_pairs_in_the_right_order() -> None:
    g = np.random.default_rng(0)
    a = g.integers(0, 5, (30, 3)).astype(float)  # with ties
    c = g.random((30, 2)) < 0.4
    chosen = Chosen(np.array([0, 1, 1]), np.array([1.0, 1.0, -1.0]), np.zeros(3))
    scores = AreaScore(both=True).at(a, c, chosen).scores
    for u, (k, sign) in enumerate(((0, 1), (1, 1), (1, -1))):
        has, lacks = sign * a[c[:, k], u][:, None], sign * a[~c[:, k], u][None]
        assert scores[u] == pytest.approx(float((has > lacks).mean() + (has == lacks).mean() / 2), abs=1e-12)


def test_only_units_of_two_signs_may_stand_for_a_concept_by_being_low() -> None:
    g = np.random.default_rng(1)
    c = g.random((60, 2)) < 0.5
    a = -c.astype(float)
    assert (AreaScore(both=True).choose(a, c).score == 1).all()
    assert (AreaScore().choose(a, c).score < 0.75).all()


def test_an_overlap_is_intersection_over_union_of_all_positions() -> None:
    g = np.random.default_rng(2)
    a, c = g.standard_normal((20, 9, 3)), g.random((20, 9, 2)) < 0.3
    chosen = Chosen(np.array([0, 1, 1]), np.array([0.0, 0.5, 1.0]), np.zeros(3))
    at = OverlapScore().at(a, c, chosen)
    order = g.permutation(20)
    for rows, scores in ((np.arange(20), at.scores), (order, at.shuffled(order[None])[0])):
        for u, (k, t) in enumerate(((0, 0.0), (1, 0.5), (1, 1.0))):
            active, mask = a[:, :, u] > t, c[rows][:, :, k]
            assert scores[u] == pytest.approx((active & mask).sum() / (active | mask).sum(), abs=1e-12)


def test_the_threshold_of_an_overlap_is_one_of_the_top_shares() -> None:
    g = np.random.default_rng(3)
    a = g.standard_normal((40, 50, 2))
    c = np.stack([a[:, :, 0] > np.quantile(a[:, :, 0], 0.9), g.random((40, 50)) < 0.1], 2)
    chosen = OverlapScore().choose(a, c)
    assert chosen.concept[0] == 0
    assert chosen.score[0] > 0.98
    assert (a[:, :, 0] > chosen.level[0]).mean() == pytest.approx(0.1, abs=0.005)


def test_intervals_of_areas_cover_the_true_area() -> None:
    shifts, inside, trials = np.array([0.5, 1.5, 3.0]), np.zeros(3), 150
    truth = norm.cdf(shifts / np.sqrt(2))
    for seed in range(trials):
        g = np.random.default_rng(seed)
        c = g.random((100, 1)) < 0.3
        at = AreaScore().at(g.standard_normal((100, 3)) + shifts * c, c, Chosen(np.zeros(3, int), np.ones(3), shifts))
        low, high = at.ends()
        inside += (low <= truth) & (truth <= high)
    assert (inside / trials > 0.95 - 3 * np.sqrt(0.95 * 0.05 / trials)).all()


def test_a_perfect_detector_has_an_interval_of_some_width() -> None:
    c = np.arange(40)[:, None] % 2 == 0
    low, high = AreaScore().at(c.astype(float), c, Chosen(np.zeros(1, int), np.ones(1), np.ones(1))).ends()
    assert high[0] == 1
    assert 0.7 < low[0] < 0.95


@pytest.mark.parametrize("by_position", [False, True])
def test_noise_has_a_detector_in_one_of_twenty_readings(by_position) -> None:
    trials = 150
    hits = 0
    for seed in range(trials):
        g = np.random.default_rng(seed)
        n, shared = 44, np.ones(1)
        if by_position:  # neighbouring positions are alike, and so are units
            a = g.standard_normal((n, 9, 6)) + g.standard_normal((n, 1, 6))
            c = g.standard_normal((n, 9, 3)) + g.standard_normal((n, 1, 3)) > 1
        else:
            a = g.standard_normal((n, 12)) + shared * g.standard_normal((n, 1))
            c = g.random((n, 5)) < g.uniform(0.25, 0.6, 5)
        score = OverlapScore() if by_position else AreaScore()
        found = test_units(score, a, c, ExampleHalves.draw(n, 39, seed), np.arange(a.shape[-1]), 0.0)
        hits += found.basis.count > 0
    low, high = rate_allowed(trials)
    assert low <= hits / trials <= high


def test_units_that_are_concepts_are_detectors_and_rotations_lose_them() -> None:
    g = np.random.default_rng(5)
    c = g.random((400, 10)) < 0.5
    a = np.concatenate([c + 0.01 * g.standard_normal((400, 10)), g.standard_normal((400, 3))], 1)
    halves = ExampleHalves.draw(400, 99, 0)
    found = test_units(AreaScore(), a, c, halves, np.arange(13), 0.9)
    assert found.basis.detects.tolist() == [True] * 10 + [False] * 3
    assert found.basis.chosen.concept[:10].tolist() == list(range(10))
    assert found.between == (10, 10)
    assert found.again[:10].all()
    turns = [np.linalg.qr(g.standard_normal((13, 13)))[0] for _ in range(10)]
    rotated = rotate_units(AreaScore(), lambda q: a if q is None else a @ q, c, halves, turns, 0.9)
    assert rotated.counts.mean() < 3
    assert rotated.means.mean() < found.basis.score.mean()
    same = rotate_units(AreaScore(), lambda q: a, c, halves, turns[:2], 0.9)
    assert (same.counts == 10).all()
