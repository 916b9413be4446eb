"""Modularity: whether a unit informs about one factor only."""

from __future__ import annotations

import math

import numpy as np

from memspace.measures.scores.binned import information
from memspace.measures.scores.score import Codes, Levels, Number, ScoreSettings, score, varying

__all__ = ["modularity"]


def modularity(z: Codes, v: Levels, bins: int = 20) -> float:
    """Compute how nearly each unit informs about a single factor (Ridgeway & Mozer 2018).

    mean_j 1 − Σ_{k ≠ k*} I_jk² / (I_jk*² (K − 1)), with k* the factor that unit j tells most of. A unit that tells
    nothing counts 0, as in Locatello et al. 2019. Noise does not: its plug-in information is bias alone, which
    differs by the number of levels, so compare with the null of random rotations.

    Args:
        z: (M, d) codes.
        v: (M, K) levels of the factors.
        bins: of a code.

    Returns:
        the mean over units, in [0, 1]; NaN where fewer than two factors vary.
    """
    factors = varying(v)
    if len(factors) < 2:
        return math.nan
    squared = information(z, v[:, factors], bins) ** 2
    largest = squared.max(1)
    informed = largest > 0
    others = (squared.sum(1) - largest)[informed] / (largest[informed] * (len(factors) - 1))
    return float(np.sum(1 - others) / len(squared))


@score(
    "modularity",
    {"modularity": Number("Whether a unit tells of one factor only.", "20-bin histograms")},
    source="ridgeway2018",
)
def _score(z: Codes, v: Levels, settings: ScoreSettings) -> dict[str, float]:
    return {"modularity": modularity(z, v, settings.bins)}
