"""The BetaVAE score."""

from __future__ import annotations

import math

import numpy as np
from sklearn.linear_model import LogisticRegression

from memspace.measures.scores.groups import FactorGroups, groups_of
from memspace.measures.scores.score import Codes, Levels, Number, ScoreSettings, score, trained_rows

__all__ = ["beta_vae", "mean_differences"]

CHUNK = 1000  # batches at once


def beta_vae(z: Codes, v: Levels, settings: ScoreSettings | None = None) -> float:
    """Compute how well a linear classifier tells which factor pairs of inputs share (Higgins et al. 2017).

    A point is the mean over pairs of |z − z'|, where the two of a pair share the level of one factor; a logistic
    regression predicts the factor. The original draws both inputs from a generator. Here a pair is two different rows
    of the table that share a level (see ``groups``), and training and judging use different rows. By chance the score
    is 1/K; it is not changed by a rotation as much as other scores, since the classifier may combine units.

    Args:
        z: (M, d) codes; the logistic regression is penalised, so their scale counts.
        v: (M, K) levels of the factors.
        settings: size of a batch, number of points, share of the rows that train, and seed.

    Returns:
        share of right answers; NaN where fewer than two factors vary among either rows.
    """
    settings = settings or ScoreSettings()
    train = trained_rows(len(z), settings)
    halves = [(z[:train], groups_of(v[:train])), (z[train:], groups_of(v[train:]))]
    if min(len(groups) for _, groups in halves) < max(2, len(groups_of(v))):
        return math.nan
    generator = np.random.default_rng(settings.seed)
    training, judging = (
        mean_differences(codes, groups, count, settings.batch, generator)
        for (codes, groups), count in zip(halves, (settings.points, settings.judged), strict=True)
    )
    classifier = LogisticRegression(max_iter=1000, random_state=settings.seed).fit(*training)
    return float(classifier.score(*judging))


def mean_differences(
    z: Codes, groups: list[FactorGroups], count: int, batch: int, generator: np.random.Generator
) -> tuple[Codes, Levels]:
    """Draw points: mean differences of pairs of codes that share one factor, and which factor that is.

    Args:
        z: (M, d) codes.
        groups: rows by the level of each of K factors.
        count: number of points.
        batch: pairs in a point.
        generator: of the draws.

    Returns:
        (count, d) mean absolute differences, and (count,) factors.
    """
    points, factors = [], []
    for k, batches in enumerate(generator.multinomial(count, np.full(len(groups), 1 / len(groups)))):
        for first in range(0, batches, CHUNK):
            rows, partners = groups[k].pairs(min(CHUNK, batches - first), batch, generator)
            points.append(np.abs(z[rows] - z[partners]).mean(1))
            factors.append(np.full(len(rows), k))
    return np.concatenate(points), np.concatenate(factors)


@score(
    "beta_vae",
    {
        "beta_vae": Number(
            "How well differences of pairs tell which factor the pairs share.",
            "logistic regression, half the samples held out",
        )
    },
    source="higgins2017",
    partitions=4,
)
def _score(z: Codes, v: Levels, settings: ScoreSettings) -> dict[str, float]:
    return {"beta_vae": beta_vae(z, v, settings)}
