"""The FactorVAE score."""

from __future__ import annotations

import math

import numpy as np

from memspace.measures.scores.groups import FactorGroups, groups_of
from memspace.measures.scores.score import Codes, Levels, Number, ScoreSettings, score, trained_rows

__all__ = ["factor_vae", "majority_accuracy", "steadiest_unit"]

CHUNK = 1000  # batches at once


def factor_vae(z: Codes, v: Levels, settings: ScoreSettings | None = None) -> float:
    """Compute how often the unit that varies least tells which factor is held fixed (Kim & Mnih 2018).

    Rows of a batch share the level of one factor; the unit of least variance, relative to that over all rows, votes.
    Each unit stands for the factor it votes for most often in the first rows, and the score is how often that is right
    in the others. The original draws new inputs for every batch and judges by the same generator. Here batches are
    drawn with replacement from rows that share a level (see ``groups``). Training and judging use different rows:
    otherwise a unit that is steady by chance in a group would be right twice. By chance the score is 1/K.

    Args:
        z: (M, d) codes.
        v: (M, K) levels of the factors.
        settings: size of a batch, number of batches, share of the rows that train, and seed.

    Returns:
        share of right votes; NaN where fewer than two factors vary among either rows, or no unit varies.
    """
    settings = settings or ScoreSettings()
    train = trained_rows(len(z), settings)
    variance = z.var(0, ddof=1)
    active = z.std(0) > settings.collapsed
    halves = [(z[:train], groups_of(v[:train])), (z[train:], groups_of(v[train:]))]
    if not active.any() or min(len(groups) for _, groups in halves) < max(2, len(groups_of(v))):
        return math.nan
    generator = np.random.default_rng(settings.seed)
    votes = []
    for (codes, groups), count in zip(halves, (settings.points, settings.judged), strict=True):
        votes.append(_votes(codes[:, active], variance[active], groups, count, settings.batch, generator))
    return majority_accuracy(*votes)


def steadiest_unit(batches: Codes, variance: Codes) -> Levels:
    """Find the unit that varies least in each batch, relative to its variance over all rows.

    Args:
        batches: (n, batch, d) codes.
        variance: (d,) over all rows.

    Returns:
        (n,) units.
    """
    steadiest: Levels = np.argmin(batches.var(1, ddof=1) / variance, 1)
    return steadiest


def majority_accuracy(training: Levels, judging: Levels) -> float:
    """Compute how often the factor that a unit votes for most often in training is right in judging.

    Args:
        training: (d, K) votes of units for factors.
        judging: (d, K) likewise.

    Returns:
        a share.
    """
    answer = training.argmax(1)
    return float(judging[np.arange(len(judging)), answer].sum() / judging.sum())


def _votes(
    z: Codes, variance: Codes, groups: list[FactorGroups], count: int, batch: int, generator: np.random.Generator
) -> Levels:
    votes = np.zeros((z.shape[1], len(groups)), dtype=np.int64)
    for k, batches in enumerate(generator.multinomial(count, np.full(len(groups), 1 / len(groups)))):
        for first in range(0, batches, CHUNK):
            rows = groups[k].sharing(min(CHUNK, batches - first), batch, generator)
            votes[:, k] += np.bincount(steadiest_unit(z[rows], variance), minlength=z.shape[1])
    return votes


@score(
    "factor_vae",
    {
        "factor_vae": Number(
            "How often the unit that varies least tells which factor is held fixed.",
            "majority vote, half the samples held out",
        )
    },
    source="kim2018",
)
def _score(z: Codes, v: Levels, settings: ScoreSettings) -> dict[str, float]:
    return {"factor_vae": factor_vae(z, v, settings)}
