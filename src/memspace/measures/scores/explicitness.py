"""Explicitness: whether a linear classifier reads the factors from all units."""

from __future__ import annotations

import math

import numpy as np
from scipy.stats import rankdata
from sklearn.linear_model import LogisticRegression

from memspace.measures.scores.score import Codes, Levels, Number, ScoreSettings, score, trained_rows, varying

__all__ = ["explicitness"]


def explicitness(z: Codes, v: Levels, settings: ScoreSettings | None = None) -> float:
    """Compute the mean area under the ROC curve of a logistic regression, over levels and factors.

    It is the part of Ridgeway & Mozer 2018 that does not ask for single units: a rotation leaves it almost as it is.
    One multinomial regression for each factor gives the scores of all its levels. By chance it is 1/2.

    Args:
        z: (M, d) codes; they are standardised by the rows that train.
        v: (M, K) levels of the factors.
        settings: share of the rows that train, and seed.

    Returns:
        the mean area over levels that occur among the other rows, then over the factors that vary; NaN where none does.
    """
    settings = settings or ScoreSettings()
    train = trained_rows(len(z), settings)
    scaled = (z - z[:train].mean(0)) / np.maximum(z[:train].std(0), 1e-12)
    areas = []
    for k in varying(v, train):
        classifier = LogisticRegression(max_iter=1000, random_state=settings.seed).fit(scaled[:train], v[:train, k])
        chances = classifier.predict_proba(scaled[train:])
        truth = v[train:, k, None] == classifier.classes_
        areas.append(np.nanmean(_area(chances, truth)))
    return float(np.mean(areas)) if areas else math.nan


def _area(scores: Codes, truth: np.ndarray) -> Codes:
    """The area under the ROC curve of each column, by its ranks; NaN where all rows are alike."""
    positive = truth.sum(0)
    pairs = positive * (len(truth) - positive)
    above = (rankdata(scores, axis=0) * truth).sum(0) - positive * (positive + 1) / 2
    return np.where(pairs > 0, above / np.maximum(pairs, 1), math.nan)


@score(
    "explicitness",
    {
        "explicitness": Number(
            "How well the factors can be read from all units by a linear rule.",
            "area under the ROC curve of logistic regressions, half the samples held out",
        )
    },
    source="ridgeway2018",
    partitions=4,
)
def _score(z: Codes, v: Levels, settings: ScoreSettings) -> dict[str, float]:
    return {"explicitness": explicitness(z, v, settings)}
