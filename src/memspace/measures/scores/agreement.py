"""Whether scores agree on which models are better."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.stats import spearmanr

from memspace.intervals import margin
from memspace.measures.scores.score import Codes, Levels

__all__ = ["ScoreAgreement", "agreement"]

FEWEST = 4  # models: the error of a rank correlation has n − 3 below


@dataclass(frozen=True)
class ScoreAgreement:
    """Rank correlations between scores over models.

    Args:
        names: of the S scores.
        matrix: (S, S) Spearman's ρ; NaN where a score does not vary or fewer than four models have both.
        low: (S, S) lower ends of the 95% intervals.
        high: (S, S) upper ends.
        models: (S, S) how many models have both scores.
    """

    names: tuple[str, ...]
    matrix: Codes
    low: Codes
    high: Codes
    models: Levels

    def between(self, first: str, second: str) -> tuple[float, float, float]:
        """Look up a pair.

        Args:
            first: name of a score.
            second: of another.

        Returns:
            ρ, and the ends of its interval.
        """
        i, j = self.names.index(first), self.names.index(second)
        return float(self.matrix[i, j]), float(self.low[i, j]), float(self.high[i, j])


def agreement(table: Mapping[str, Sequence[float]]) -> ScoreAgreement:
    """Compute the rank correlation of every two scores over a set of models, as Locatello et al. 2019 did.

    Intervals are by Fisher's transformation with the error √((1 + ρ²/2)/(n − 3)) of Bonett & Wright 2000.

    Args:
        table: numbers of each score, one a model; NaN where a model has none.

    Returns:
        Spearman's ρ with its intervals.
    """
    names = tuple(table)
    columns = [np.asarray(table[name], dtype=np.float64) for name in names]
    matrix, low, high = (np.full((len(names),) * 2, math.nan) for _ in range(3))
    models = np.zeros((len(names),) * 2, dtype=np.int64)
    for i, first in enumerate(columns):
        for j, second in enumerate(columns[: i + 1]):
            both = np.isfinite(first) & np.isfinite(second)
            models[i, j] = models[j, i] = both.sum()
            rho, ends = _rank_correlation(first[both], second[both])
            for place in ((i, j), (j, i)):
                matrix[place], (low[place], high[place]) = rho, ends
    return ScoreAgreement(names, matrix, low, high, models)


def _rank_correlation(first: Codes, second: Codes) -> tuple[float, tuple[float, float]]:
    unknown = math.nan, (math.nan, math.nan)
    if len(first) < FEWEST or np.ptp(first) == 0 or np.ptp(second) == 0:
        return unknown
    rho = float(spearmanr(first, second).statistic)
    if abs(rho) > 1 - 1e-12:
        return round(rho), (math.nan, math.nan)  # a perfect order has no error of this kind
    half = margin(math.sqrt((1 + rho**2 / 2) / (len(first) - 3)))
    middle = math.atanh(rho)
    return rho, (math.tanh(middle - half), math.tanh(middle + half))
