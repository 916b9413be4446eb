"""All scores of one table of codes, with error, null and chance level."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from memspace.errors import NonFiniteError, ShapeError
from memspace.measures.scores.repeated import FOLDS, repeat_scores, rotations, shuffled
from memspace.measures.scores.score import Codes, Number, ScoreSettings, scores_named
from memspace.value import Value

__all__ = ["ScoreResult", "score_all", "standardised"]

ROTATIONS = 19  # the fewest by which a score is beyond its null at 1 in 20
SHUFFLES = 5
WHERE = "score_all"


@dataclass(frozen=True)
class ScoreResult:
    """One number of a score.

    Args:
        number: what it is.
        value: of the codes, with the error over samples.
        null: of the codes after random rotations, with the interval of one more rotation.
        chance: probability of so large a number if the units are no better than a random rotation of them.
        level: what shuffled factors give, with the interval of one more order: the chance level of the score. It is
            not 0 for modularity, IRS, BetaVAE, FactorVAE and explicitness.
    """

    number: Number
    value: Value
    null: Value | None
    chance: float
    level: Value | None


def score_all(
    z: Any,
    v: Any,
    settings: ScoreSettings | None = None,
    *,
    names: Sequence[str] | None = None,
    folds: int = FOLDS,
    turns: int = ROTATIONS,
    shuffles: int = SHUFFLES,
) -> dict[str, ScoreResult]:
    """Compute scores of codes against known factors, each with interval, null of random rotations and chance level.

    Codes are standardised first, so that no score depends on the scale of a unit, and their rows are shuffled.

    Args:
        z: (M, d) codes.
        v: (M, K) whole numbers, the levels of the factors.
        settings: of the scores; None: the defaults.
        names: of scores; None: all that are not slow.
        folds: parts of the rows that are left out in turn, for the error; 2 or more.
        turns: random rotations; 0: no null.
        shuffles: random orders of the factors' rows; 0: no chance level.

    Returns:
        Results by name of the number.

    Raises:
        ShapeError: codes and levels are not two tables of as many rows.
        NonFiniteError: a code is infinite or not a number.
    """
    settings = settings or ScoreSettings()
    codes, levels = np.asarray(z, dtype=np.float64), np.asarray(v)
    if codes.ndim != 2 or levels.ndim != 2 or len(codes) != len(levels) or len(codes) < 2 * folds:
        what = f"codes {codes.shape} and levels {levels.shape} are not tables of the same {2 * folds} rows or more"
        raise ShapeError(what, where=WHERE, remedy="give z (M, d) and v (M, K)")
    if not np.isfinite(codes).all():
        raise NonFiniteError("a code is infinite or not a number", where=WHERE, remedy="leave out such rows")
    if not np.issubdtype(levels.dtype, np.integer):
        raise ShapeError("the levels are not whole numbers", where=WHERE, remedy="number each factor's levels")
    order = np.random.default_rng(settings.seed).permutation(len(codes))
    codes, levels = standardised(codes[order], settings.collapsed), levels[order].astype(np.int64)
    scores = scores_named(names)
    rotated = _turns(codes, turns, settings.seed + 1)
    orders = shuffled(len(codes), shuffles, settings.seed + 2)
    repeated = repeat_scores(codes, levels, scores, settings, folds=folds, turns=rotated, orders=orders)
    return {
        name: ScoreResult(
            number,
            repeated.measured(name, number),
            repeated.null(name, number) if turns else None,
            repeated.chance(name) if turns else float("nan"),
            repeated.chance_level(name, number) if shuffles else None,
        )
        for s in scores
        for name, number in s.numbers.items()
    }


def standardised(z: Codes, collapsed: float = 0.0) -> Codes:
    """Scale codes to mean 0 and variance 1.

    Args:
        z: (M, d) codes.
        collapsed: units of no larger standard deviation are constant.

    Returns:
        (M, d); constant units are 0.
    """
    rounding = 1e-12 * np.abs(z).max(0)
    centred = z - z.mean(0)
    spread = centred.std(0)
    active = spread > np.maximum(collapsed, rounding)
    return np.where(active, centred / np.where(active, spread, 1.0), 0.0)


def _turns(codes: Codes, count: int, seed: int) -> list[Codes]:
    """Rotations among the units that vary: constant ones would be filled by the others."""
    active = np.flatnonzero(codes.any(0))
    turns = []
    for rotation in rotations(len(active), count, seed):
        turn = np.eye(codes.shape[1])
        turn[np.ix_(active, active)] = rotation
        turns.append(turn)
    return turns
