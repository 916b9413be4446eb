"""Disentanglement, completeness and informativeness."""

from __future__ import annotations

import math

import numpy as np
from sklearn.ensemble import GradientBoostingClassifier, RandomForestClassifier

from memspace.measures.scores.score import Codes, Levels, Number, ScoreSettings, score, trained_rows, varying

__all__ = ["dci", "dci_of_importance"]

FORESTS = "random forests, 50 trees, half the samples held out"


def dci(z: Codes, v: Levels, settings: ScoreSettings | None = None) -> tuple[float, float, float]:
    """Compute disentanglement, completeness and informativeness (Eastwood & Williams 2018).

    Importances are the impurity decreases of a random forest per factor (50 trees, depth 8, every code offered at
    every split, so that an exact code takes all the importance). Gradient boosting, as in Locatello et al. 2019, is a
    setting; it takes ten times as long. The first rows train, the others give the informativeness.

    Args:
        z: (M, d) codes.
        v: (M, K) levels of the factors.
        settings: regressor, share of the rows that train, and seed.

    Returns:
        disentanglement and completeness in [0, 1], and informativeness, a share of right predictions. The first two are
        NaN where no code is informative or there is only one; all three where no factor varies.
    """
    settings = settings or ScoreSettings()
    train = trained_rows(len(z), settings)
    importance, accuracy = [], []
    for k in varying(v, train):
        trees = _trees(settings)
        trees.fit(z[:train], v[:train, k])
        importance.append(np.abs(trees.feature_importances_))
        accuracy.append(trees.score(z[train:], v[train:, k]))
    if not importance:
        return math.nan, math.nan, math.nan
    return (*dci_of_importance(np.stack(importance, 1)), float(np.mean(accuracy)))


def dci_of_importance(importance: Codes) -> tuple[float, float]:
    """Compute disentanglement and completeness from how important each code is for each factor.

    Disentanglement is 1 − entropy of a code's row over log K, weighted by the row's sum. Completeness is 1 − entropy of
    a factor's column over log d, averaged over the factors that some code is informative about.

    Args:
        importance: (d, K), none negative.

    Returns:
        both in [0, 1]; NaN where no code is important, and where there is only one to choose from.
    """
    by_code = importance.sum(1)
    if by_code.sum() <= 0:  # no code is informative about any factor: there is nothing to separate
        return math.nan, math.nan
    used = by_code > 0
    disentangled = float((_concentration(importance)[used] * by_code[used]).sum() / by_code.sum())
    explained = importance.sum(0) > 0
    return disentangled, float(_concentration(importance.T[explained]).mean())


def _trees(settings: ScoreSettings) -> RandomForestClassifier | GradientBoostingClassifier:
    if settings.regressor == "boosting":
        return GradientBoostingClassifier(random_state=settings.seed)
    return RandomForestClassifier(50, max_depth=8, max_features=None, random_state=settings.seed, n_jobs=1)


def _concentration(p: Codes) -> Codes:
    """1 − entropy of each row over the most it could be; NaN where there is nothing to choose from."""
    if p.shape[-1] < 2:
        return np.full(len(p), math.nan)
    total = p.sum(-1)
    q = p / np.maximum(total, 1e-300)[:, None]
    entropy = -(q * np.log(np.maximum(q, 1e-300))).sum(-1)
    return np.where(total > 0, 1 - entropy / math.log(q.shape[-1]), math.nan)


@score(
    "dci",
    {
        "dci": Number("Whether a unit matters for one factor only.", FORESTS),
        "dci.completeness": Number("Whether one unit alone matters for a factor.", FORESTS),
        "dci.informativeness": Number("How well all units together predict the factors.", FORESTS),
    },
    source="eastwood2018",
    partitions=2,
)
def _score(z: Codes, v: Levels, settings: ScoreSettings) -> dict[str, float]:
    names = ("dci", "dci.completeness", "dci.informativeness")
    return dict(zip(names, dci(z, v, settings), strict=True))
