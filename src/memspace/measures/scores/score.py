"""The registry of scores, and the settings that they share."""

from __future__ import annotations

import pkgutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import Annotated

import numpy as np
from numpy.typing import NDArray

from memspace.arguments import check_fields
from memspace.errors import SettingsError
from memspace.limits import COUNT, PART, SEED, SEVERAL, SHARE, one_of
from memspace.measures import scores

__all__ = [
    "STUDY",
    "STUDY_ROWS",
    "Codes",
    "Levels",
    "Number",
    "Score",
    "ScoreSettings",
    "registered_scores",
    "score",
    "scores_named",
    "trained_rows",
    "varying",
]

Codes = NDArray[np.float64]
Levels = NDArray[np.int64]
REGRESSORS = ("forest", "boosting")


@dataclass(frozen=True)
class ScoreSettings:
    """How scores are computed; the defaults are those of Locatello et al. 2019, where they say one.

    Args:
        bins: of a code's histogram, equally wide.
        batch: rows that share a level, in one point of the BetaVAE and FactorVAE scores.
        points: of these two scores to train with.
        judged: points of these two scores to judge by.
        trained: share of the rows that classifiers are trained on; the others judge them.
        regressor: of DCI: ``"forest"``, or ``"boosting"`` as in the study, which takes ten times as long.
        quantile: of the deviations that IRS takes as the largest.
        collapsed: a unit with a smaller standard deviation counts as constant. The study used 0.05 for FactorVAE.
        seed: of every draw.

    Raises:
        SettingsError: one of them is out of its range.
    """

    bins: Annotated[int, SEVERAL] = 20
    batch: Annotated[int, SEVERAL] = 64
    points: Annotated[int, COUNT] = 10_000
    judged: Annotated[int, COUNT] = 5_000
    trained: Annotated[float, PART] = 0.5
    regressor: str = "forest"
    quantile: Annotated[float, PART] = 0.99
    collapsed: Annotated[float, SHARE] = 0.0
    seed: Annotated[int, SEED] = 0

    def __post_init__(self) -> None:
        check_fields(self)
        one_of(self.regressor, REGRESSORS, "regressor")


# On this many rows two thirds train and one third judges: 10,000 and 5,000, as in the study.
STUDY = ScoreSettings(trained=2 / 3, regressor="boosting", collapsed=0.05)
STUDY_ROWS = 15_000


@dataclass(frozen=True)
class Number:
    """One number of a score.

    Args:
        meaning: in a sentence, for people.
        estimator: how it is computed.
        lower: the least it can be.
        upper: the most it can be.
    """

    meaning: str
    estimator: str
    lower: float = 0.0
    upper: float = 1.0


Compute = Callable[[Codes, Levels, ScoreSettings], Mapping[str, float]]


@dataclass(frozen=True)
class Score:
    """A score of codes against known factors.

    Args:
        name: of the score.
        compute: its numbers by name, from codes, levels and settings.
        numbers: what they are, by name.
        source: keys of the bibliography.
        slow: True where it takes seconds on a thousand rows; it is then computed where it is named.
        partitions: of the rows into parts, over which the squared error is averaged. More than one where a single
            partition's error varies so much that intervals miss, as for a score that rests on a few extreme rows.
    """

    name: str
    compute: Compute
    numbers: Mapping[str, Number]
    source: str
    slow: bool = False
    partitions: int = 1


_SCORES: dict[str, Score] = {}


def score(
    name: str, numbers: Mapping[str, Number], *, source: str, slow: bool = False, partitions: int = 1
) -> Callable[[Compute], Compute]:
    """Register a score; use it as a decorator.

    Args:
        name: of the score.
        numbers: what it returns, by name; the name of the first is the score's.
        source: keys of the bibliography.
        slow: see :class:`Score`.
        partitions: likewise.

    Returns:
        What registers ``compute(z, v, settings)`` and gives it back.
    """

    def register(compute: Compute) -> Compute:
        _SCORES[name] = Score(name, compute, numbers, source, slow, partitions)
        return compute

    return register


def registered_scores() -> dict[str, Score]:
    """Give every score that is registered.

    Returns:
        Scores by name, in alphabetical order.
    """
    for module in pkgutil.iter_modules(scores.__path__):
        import_module(f"{scores.__name__}.{module.name}")
    return dict(sorted(_SCORES.items()))


def scores_named(names: Sequence[str] | None = None) -> tuple[Score, ...]:
    """Find scores by name.

    Args:
        names: of scores; None: all that are not slow.

    Returns:
        The scores in the order of their names.

    Raises:
        SettingsError: there is no such score.
    """
    known = registered_scores()
    if names is None:
        return tuple(s for s in known.values() if not s.slow)
    unknown = sorted(set(names) - set(known))
    if unknown:
        remedy = f"name some of {', '.join(known)}"
        raise SettingsError(f"there is no score {unknown[0]!r}", where="scores", remedy=remedy)
    return tuple(known[name] for name in names)


def varying(v: Levels, rows: int | None = None) -> list[int]:
    """List the factors that take two levels or more.

    Args:
        v: (M, K) levels.
        rows: how many of the first rows count; None: all.

    Returns:
        Their columns.
    """
    return [k for k in range(v.shape[1]) if len(np.unique(v[:rows, k])) > 1]


def trained_rows(rows: int, settings: ScoreSettings) -> int:
    """Count the rows that train a classifier; the others judge it.

    Args:
        rows: M.
        settings: with the share.

    Returns:
        How many of the first rows train.
    """
    return int(rows * settings.trained)
