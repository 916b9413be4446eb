"""Rank correlations between scores over models."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.stats import spearmanr

from memspace.measures.scores.agreement import agreement


def test_scores_of_one_order_agree_and_of_the_reverse_disagree() -> None:
    x = np.random.default_rng(0).random(30)
    made = agreement({"a": x, "b": np.exp(x), "c": -x, "d": np.full(30, 0.5)})
    assert made.between("a", "b")[0] == 1
    assert made.between("a", "c")[0] == -1
    assert math.isnan(made.between("a", "d")[0])
    assert np.array_equal(made.matrix, made.matrix.T, equal_nan=True)


def test_models_without_a_score_are_left_out_by_pairs() -> None:
    rng = np.random.default_rng(1)
    x, y = rng.random((2, 20))
    y[:5] = math.nan
    made = agreement({"x": x, "y": y})
    assert made.models.tolist() == [[20, 15], [15, 15]]
    rho, low, high = made.between("x", "y")
    assert rho == pytest.approx(spearmanr(x[5:], y[5:]).statistic)
    assert low < rho < high
    assert math.isnan(agreement({"x": x[:3], "y": x[:3]}).between("x", "y")[0])


@pytest.mark.parametrize(("models", "rho"), [(20, 0.0), (20, 0.6), (120, 0.6)])
def test_intervals_cover_the_rank_correlation(models: int, rho: float) -> None:
    """Of normal pairs, whose ρ_S is 6/π arcsin(ρ/2); within four binomial errors of 95%, or above."""
    rng = np.random.default_rng(models)
    truth = 6 / math.pi * math.asin(rho / 2)
    trials, covered = 400, 0
    for _ in range(trials):
        x = rng.standard_normal(models)
        y = rho * x + math.sqrt(1 - rho**2) * rng.standard_normal(models)
        _, low, high = agreement({"x": x, "y": y}).between("x", "y")
        covered += low <= truth <= high
    assert covered / trials > 0.95 - 4 * math.sqrt(0.95 * 0.05 / trials)
