"""Separated attribute predictability."""

from __future__ import annotations

import math

import numpy as np
from sklearn.svm import LinearSVC

from memspace.measures.scores.score import Codes, Levels, Number, ScoreSettings, score, trained_rows, varying

__all__ = ["sap"]


def sap(z: Codes, v: Levels, settings: ScoreSettings | None = None) -> float:
    """Compute the mean gap in held-out accuracy between the two codes that predict a factor best (Kumar et al. 2018).

    The classifier is a linear support vector machine on one standardised code, with C = 0.01 and balanced classes as in
    Locatello et al. 2019.

    Args:
        z: (M, d) codes; the first rows train a classifier on each.
        v: (M, K) levels of the factors.
        settings: share of the rows that train, and seed.

    Returns:
        the mean gap over the factors that vary, in [0, 1]; NaN where none varies.
    """
    settings = settings or ScoreSettings()
    train = trained_rows(len(z), settings)
    scaled = (z - z.mean(0)) / np.maximum(z.std(0), 1e-12)
    gaps = []
    for k in varying(v, train):
        accuracy = []
        for code in scaled.T:
            machine = LinearSVC(C=0.01, dual=False, class_weight="balanced", random_state=settings.seed)
            machine.fit(code[:train, None], v[:train, k])
            accuracy.append(machine.score(code[train:, None], v[train:, k]))
        ordered = np.sort(accuracy)[::-1]
        gaps.append(ordered[0] - (ordered[1] if len(ordered) > 1 else 0.0))
    return float(np.mean(gaps)) if gaps else math.nan


@score(
    "sap",
    {
        "sap": Number(
            "How much better one unit predicts a factor than the next unit does.",
            "linear SVM, half the samples held out",
        )
    },
    source="kumar2018",
)
def _score(z: Codes, v: Levels, settings: ScoreSettings) -> dict[str, float]:
    return {"sap": sap(z, v, settings)}
