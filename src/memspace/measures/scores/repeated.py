"""Scores of the same codes again: without parts of the samples, after rotations, and with factors shuffled.

Parts give the error, rotations the null of single units, and shuffled factors what a score gives by chance alone.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np

from memspace.intervals import around
from memspace.measures.scores.score import Codes, Levels, Number, Score, ScoreSettings
from memspace.value import Value

__all__ = ["RepeatedScores", "one_more", "repeat_scores", "rotations", "shuffled"]

FOLDS = 5
FEWEST = 100  # rows: below, a bin of MIG's histograms has fewer than five and a held-out half is too small
Track = Callable[[Sequence[Callable[[], dict[str, float]]], str, int], Iterable[Callable[[], dict[str, float]]]]


@dataclass(frozen=True)
class RepeatedScores:
    """Numbers of scores by name.

    Args:
        value: of all rows.
        parts: (Q, F) of the rows without each of F parts, for each of Q partitions.
        rotated: (R,) after each of R random rotations.
        by_chance: (P,) with the factors' rows in each of P random orders, so that codes tell nothing of them.
        n: rows.
    """

    value: Mapping[str, float]
    parts: Mapping[str, Codes]
    rotated: Mapping[str, Codes]
    by_chance: Mapping[str, Codes]
    n: int

    def measured(self, name: str, number: Number, how: str = "") -> Value:
        """Give a number with its interval: delete-a-part jackknife, by Student's t, with an error of one row or more.

        Squared errors are averaged over partitions; t has the degrees of freedom of one. The interval is of the mean
        of the number over samples of this size: the bias of an estimator stays in it.

        Args:
            name: of the number.
            number: what it is.
            how: particulars of the codes, for people.

        Returns:
            The value; not reliable where rows are few or no code is informative. Its note is what chance gives.
        """
        value, parts = self.value[name], self.parts[name]
        folds = parts.shape[1]
        error = math.sqrt((folds - 1) * float(parts.var(1).mean()))
        error = max(error, 1 / self.n)  # parts without an error among few rows do not show that errors are impossible
        finite = math.isfinite(value + error)
        ends = around(value, error, folds - 1, lower=number.lower, upper=number.upper) if finite else None
        doubt = _doubt(value + error, self.n)
        return Value(value, self.n, ends, how=how, reliable=not doubt, note=doubt or self._beside_chance(name, value))

    def _beside_chance(self, name: str, value: float) -> str:
        """What shuffled factors give, and whether the number is more than that; empty where none were shuffled."""
        levels = self.by_chance[name]
        ends = one_more(levels, -math.inf, math.inf)
        if ends is None:
            return ""
        more = "" if value > ends[1] else "no more than chance: "
        return f"{more}shuffled factors give {levels.mean():.2f}"

    def null(self, name: str, number: Number) -> Value:
        """Give the number of rotated codes, with the interval of one more rotation.

        Args:
            name: of the number.
            number: what it is.

        Returns:
            The mean over rotations.
        """
        values = self.rotated[name]
        ends = one_more(values, number.lower, number.upper)
        return Value(float(values.mean()), self.n, ends, reliable=ends is not None and self.n >= FEWEST)

    def chance_level(self, name: str, number: Number) -> Value:
        """Give the number that shuffled factors have, with the interval of one more order.

        Args:
            name: of the number.
            number: what it is.

        Returns:
            The mean over orders: what the score gives codes of this kind that tell nothing of the factors.
        """
        values = self.by_chance[name]
        ends = one_more(values, number.lower, number.upper)
        return Value(float(values.mean()), self.n, ends, reliable=ends is not None and self.n >= FEWEST)

    def chance(self, name: str) -> float:
        """Compute how probable so large a number is if the units are no better than a random rotation of them.

        Args:
            name: of the number.

        Returns:
            (1 + rotations that reach it)/(1 + R), NaN where a number is missing: exact for codes that are themselves
            rotated at random.
        """
        value, rotated = self.value[name], self.rotated[name]
        if not (math.isfinite(value) and np.isfinite(rotated).all()):
            return math.nan
        return float(1 + (rotated >= value).sum()) / (1 + len(rotated))


def repeat_scores(
    z: Codes,
    v: Levels,
    scores: Sequence[Score],
    settings: ScoreSettings,
    *,
    folds: int = FOLDS,
    turns: Sequence[Codes] = (),
    orders: Sequence[Levels] = (),
    track: Track | None = None,
) -> RepeatedScores:
    """Score codes, parts of the rows, rotated codes, and codes against shuffled factors.

    Args:
        z: (M, d) codes, in random order.
        v: (M, K) levels of the factors.
        scores: which ones.
        settings: of the scores.
        folds: parts that the rows are divided into.
        turns: (d, d) rotations.
        orders: (M,) rows, by :func:`shuffled`; the factors of all are shuffled together and stay as they are related.
        track: reports progress over the jobs, with a title and their number.

    Returns:
        The numbers of all scores.
    """
    fold = np.arange(len(z)) % folds
    generator = np.random.default_rng(settings.seed + 3)
    splits = [fold, *(generator.permutation(fold) for _ in range(max((s.partitions for s in scores), default=1) - 1))]
    divided = [[s for s in scores if s.partitions > q] for q in range(len(splits))]
    jobs = [partial(_numbers, z, v, scores, settings)]
    jobs += [
        partial(_numbers, z[split != f], v[split != f], some, settings)
        for split, some in zip(splits, divided, strict=True)
        for f in range(folds)
    ]
    tables = [*((z @ q, v) for q in turns), *((z, v[order]) for order in orders)]
    jobs += [partial(_numbers, codes, levels, scores, settings) for codes, levels in tables]
    tracked = track(jobs, "disentanglement scores", len(jobs)) if track else jobs
    whole, *others = [job() for job in tracked]
    last = folds * len(splits)
    parts = {name: column.reshape(-1, folds) for name, column in _columns(whole, others[:last]).items()}
    rotated, by_chance = others[last : last + len(turns)], others[last + len(turns) :]
    return RepeatedScores(whole, parts, _columns(whole, rotated), _columns(whole, by_chance), len(z))


def rotations(width: int, count: int, seed: int) -> list[Codes]:
    """Draw orthogonal matrices, uniformly by Haar's measure.

    Args:
        width: d.
        count: how many.
        seed: of the draws.

    Returns:
        (d, d) each.
    """
    generator = np.random.default_rng(seed)
    turns = []
    for _ in range(count):
        q, r = np.linalg.qr(generator.standard_normal((width, width)))
        turns.append(q * np.sign(np.diag(r)))
    return turns


def shuffled(rows: int, count: int, seed: int) -> list[Levels]:
    """Draw random orders of rows.

    Args:
        rows: M.
        count: how many orders.
        seed: of the draws.

    Returns:
        (M,) each.
    """
    generator = np.random.default_rng(seed)
    return [generator.permutation(rows) for _ in range(count)]


def one_more(values: Codes, lower: float = 0.0, upper: float = 1.0) -> tuple[float, float] | None:
    """Predict where one more draw of a score falls in 95 of 100 cases, from a few draws.

    Args:
        values: (R,) draws.
        lower: the least the score can be.
        upper: the most it can be.

    Returns:
        the interval, by Student's t; None where the spread is unknown.
    """
    if len(values) < 2:
        return None
    # The mean of so few has an error of its own: √(1 + 1/n) times the spread, by Student's t.
    spread = float(values.std(ddof=1)) * math.sqrt(1 + 1 / len(values))
    if not math.isfinite(spread):
        return None
    return around(float(values.mean()), spread, len(values) - 1, lower=lower, upper=upper)


def _numbers(z: Codes, v: Levels, scores: Sequence[Score], settings: ScoreSettings) -> dict[str, float]:
    return {name: number for s in scores for name, number in s.compute(z, v, settings).items()}


def _columns(names: Iterable[str], numbers: Sequence[Mapping[str, float]]) -> dict[str, Codes]:
    return {name: np.array([n[name] for n in numbers if name in n]) for name in names}


def _doubt(score: float, n: int) -> str:
    """Why a score is not reliable; empty where it is."""
    if not math.isfinite(score):
        return "no code is informative about any factor"
    return "" if n >= FEWEST else f"made of {n} inputs; {FEWEST} or more are needed"
