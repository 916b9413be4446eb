"""How well a unit tells where a concept is: the area under its ROC curve, or intersection over union by position.

Concept and threshold of every unit are chosen on one half of the examples and judged on the other. Shuffling the
concepts between the examples of that other half, whole rows at a time, gives what chance does: activations, and how
concepts occur together or where in a picture they are, stay as they were.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray
from scipy.stats import rankdata

from memspace.intervals import margin, of_share

__all__ = ["TOPS", "AreaScore", "Chosen", "ChosenUnits", "OverlapScore", "UnitScore"]

Floats = NDArray[np.float64]
Masks = NDArray[np.bool_]
TOPS = (0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.4)  # shares of a unit's activations above a threshold
QUANTILES = 20_000  # activations of a unit that its thresholds are read from
PAIRS = 2**24  # numbers of the table of examples by examples that shuffles are summed from


@dataclass(frozen=True)
class Chosen:
    """The concept that suits each unit best on one half of the examples.

    Args:
        concept: (U,) position of the concept.
        level: (U,) threshold; of areas 1 where activations are larger with the concept and −1 where they are smaller.
        score: (U,) on the same half, so rather too large.
    """

    concept: NDArray[np.int64]
    level: Floats
    score: Floats


class ChosenUnits(ABC):
    """Units at the concepts chosen for them, on examples that had no part in the choice.

    Attributes:
        scores: (U,).
        parts: (m, U) of each example in the error: their sum of squares is the squared standard error.
        least_count: (U,) of examples with the concept and without, the smaller number.
        most_count: (U,) of independent examples that an interval may count, infinite for shares of positions.
    """

    scores: Floats
    parts: Floats
    least_count: NDArray[np.int64]
    most_count: float

    @abstractmethod
    def shuffled(self, orders: NDArray[np.int64]) -> Floats:
        """Score the same units with every example's concepts replaced by another's.

        Args:
            orders: (B, m) the example whose concepts each gets.

        Returns:
            (B, U).
        """

    def ends(self, level: float = 0.95) -> tuple[Floats, Floats]:
        """Compute intervals of the scores: Clopper–Pearson at the number of examples that the error amounts to.

        Args:
            level: of each interval.

        Returns:
            lower and upper ends, (U,) each; never of width 0.
        """
        error = (self.parts**2).sum(0)
        low, high = np.zeros(len(self.scores)), np.ones(len(self.scores))
        for u, (s, variance, count) in enumerate(zip(self.scores, error, self.least_count, strict=True)):
            if count < 2:
                continue
            size = float(count) if variance <= 0 else min(self.most_count, s * (1 - s) / variance)
            size = max(size, 1.0) * (margin(1.0) / margin(1.0, count - 1)) ** 2
            ends = of_share(s * size, size, level).ends
            assert ends is not None
            low[u], high[u] = ends
        return low, high


class UnitScore(ABC):
    """A score of units against concepts.

    Attributes:
        name: for people.
        estimator: how it is computed.
        source: of the definition.
        least: from which on a unit counts as a detector, where nothing else is asked for.
        chance: the score of a unit that knows nothing, where that is one number.
    """

    name: str
    estimator: str
    source: str
    least: float
    chance: float | None

    @abstractmethod
    def choose(self, a: Floats, c: Masks) -> Chosen:
        """Choose the concept of each unit.

        Args:
            a: activations (m, U), or (m, P, U) by position.
            c: concepts (m, K), or (m, P, K).

        Returns:
            the concept of the largest score.
        """

    @abstractmethod
    def at(self, a: Floats, c: Masks, chosen: Chosen) -> ChosenUnits:
        """Score units at concepts that are chosen already.

        Args:
            a: activations (m, U), or (m, P, U) by position.
            c: concepts (m, K), or (m, P, K).
            chosen: for each unit.

        Returns:
            the scores.
        """


class AreaScore(UnitScore):
    """The chance that an example with the concept activates the unit more than one without.

    It needs no threshold. ½ is chance, 1 a perfect detector.

    Args:
        both: whether a unit that is lower with the concept counts as much. So it should where activations have two
            signs: exchanging these changes nothing in a network of odd activations. A rectified unit that falls silent
            detects nothing.
    """

    name = "AUC"
    estimator = "area under the ROC curve (Mann–Whitney) of the concept chosen on the other half"
    source = ""
    least = 0.9
    chance = 0.5

    def __init__(self, both: bool = False) -> None:
        self.both = both

    def choose(self, a: Floats, c: Masks) -> Chosen:
        """By ranks, ties counted half."""
        m, with_it = len(c), c.sum(0)
        sums = rankdata(a, axis=0).T @ c.astype(np.float64)
        area = (sums - with_it * (with_it + 1) / 2) / np.maximum(with_it * (m - with_it), 1)
        concept = (np.abs(area - 0.5) if self.both else area).argmax(1)
        best = np.take_along_axis(area, concept[:, None], 1)[:, 0]
        sign = np.where(best < 0.5, -1.0, 1.0) if self.both else np.ones(len(best))
        return Chosen(concept, sign, 0.5 + sign * (best - 0.5))

    def at(self, a: Floats, c: Masks, chosen: Chosen) -> ChosenUnits:
        """Ranks of activations, turned round where they are smaller with the concept."""
        return _Areas(a * chosen.level, c, chosen)


class _Areas(ChosenUnits):
    def __init__(self, a: Floats, c: Masks, chosen: Chosen) -> None:
        self._ranks, self._c, self._concept = rankdata(a, axis=0), c, chosen.concept
        self._with = c.sum(0)[chosen.concept].astype(np.float64)
        self._without = len(c) - self._with
        self.least_count = np.minimum(self._with, self._without).astype(np.int64)
        self.most_count = float(len(c))
        self.scores = self.shuffled(np.arange(len(c))[None])[0]

    def shuffled(self, orders: NDArray[np.int64]) -> Floats:
        """Sum the ranks of the examples that the concept falls on."""
        sums = np.empty((len(orders), len(self._concept)))
        for k in np.unique(self._concept):
            units = self._concept == k
            sums[:, units] = self._c[orders, k].astype(np.float64) @ self._ranks[:, units]
        least = self._with * (self._with + 1) / 2
        return np.asarray((sums - least) / np.maximum(self._with * self._without, 1))

    @cached_property
    def parts(self) -> Floats:  # type: ignore[override]
        """Placements of each example among those of the other kind (DeLong et al. 1988)."""
        parts = np.zeros_like(self._ranks)
        for k in np.unique(self._concept):
            units, has = np.flatnonzero(self._concept == k), self._c[:, k]
            n, m = int(has.sum()), int((~has).sum())
            if n < 2 or m < 2:
                continue
            for rows, other, sign in ((has, m, 1.0), (~has, n, -1.0)):
                cells = np.ix_(rows, units)
                placed = (self._ranks[cells] - rankdata(self._ranks[cells], axis=0)) / other
                count = int(rows.sum())
                centred = sign * (placed - placed.mean(0))
                parts[cells] = centred / np.sqrt(count * (count - 1.0))
        return parts


class OverlapScore(UnitScore):
    """Intersection over union of where a unit is most active and where the concept is (Bau et al. 2017).

    A unit's threshold leaves a share of its activations above it: of the shares in :data:`TOPS` the one with the
    largest score on the other half.
    """

    name = "IoU"
    estimator = "intersection over union of the top activations and the concept, both chosen on the other half"
    source = "bau2017, bau2020"
    least = 0.04
    chance = None

    def choose(self, a: Floats, c: Masks) -> Chosen:
        """Over all positions of all examples."""
        flat, masks = a.reshape(-1, a.shape[-1]), c.reshape(-1, c.shape[-1]).astype(np.float32)
        real = flat[np.isfinite(flat[:, 0])]
        thresholds = np.quantile(real[:: max(1, len(real) // QUANTILES)], [1 - t for t in TOPS], axis=0)
        size = masks.sum(0, dtype=np.float64)
        tried = []
        for t in thresholds:
            active = (flat > t).astype(np.float32)
            both = (active.T @ masks).astype(np.float64)
            tried.append(both / np.maximum(active.sum(0, dtype=np.float64)[:, None] + size - both, 1))
        table = np.stack(tried)  # shares by units by concepts
        concept = table.max(0).argmax(1)
        units = np.arange(len(concept))
        top = table[:, units, concept].argmax(0)
        return Chosen(concept, thresholds[top, units], table[top, units, concept])

    def at(self, a: Floats, c: Masks, chosen: Chosen) -> ChosenUnits:
        """Where activations are above the thresholds."""
        return _Overlaps(a > chosen.level, c, chosen)


class _Overlaps(ChosenUnits):
    def __init__(self, active: Masks, c: Masks, chosen: Chosen) -> None:
        self._concept = chosen.concept
        self._active = active.sum(1).astype(np.float64)
        sizes = c.sum(1).astype(np.float64)
        self._size = sizes[:, chosen.concept]
        self._both = _pairs(active, c, chosen.concept)
        rows = np.arange(len(c))
        self._own = self._both[rows, rows]
        self.least_count = (sizes > 0).sum(0)[chosen.concept]
        self.most_count = np.inf
        self.scores = self.shuffled(rows[None])[0]

    def shuffled(self, orders: NDArray[np.int64]) -> Floats:
        """Sum intersections of each example's activations with another's concepts; the areas stay."""
        rows = np.arange(orders.shape[1])
        both = np.stack([self._both[rows, order].sum(0) for order in orders])
        return np.asarray(both / np.maximum(self._active.sum(0) + self._size.sum(0) - both, 1))

    @cached_property
    def parts(self) -> Floats:  # type: ignore[override]
        """Linearised ratio of sums over examples."""
        union = self._active + self._size - self._own
        count = len(union)
        parts = (self._own - self.scores * union) / np.maximum(union.sum(0), 1)
        return np.asarray(parts * np.sqrt(count / max(count - 1, 1)))


def _pairs(active: Masks, c: Masks, concept: NDArray[np.int64]) -> NDArray[np.float32]:
    """Positions that an example's activations share with another's concept, (m, m, U)."""
    m, p, units = active.shape
    pairs = np.empty((m, m, units), dtype=np.float32)
    for k in np.unique(concept):
        of = np.flatnonzero(concept == k)
        masks = np.ascontiguousarray(c[:, :, k].T, dtype=np.float32)  # (P, m)
        step = max(1, PAIRS // (m * max(m, p)))
        for start in range(0, len(of), step):
            part = of[start : start + step]
            rows = active[:, :, part].transpose(0, 2, 1).reshape(-1, p).astype(np.float32)
            pairs[:, :, part] = (rows @ masks).reshape(m, len(part), m).transpose(0, 2, 1)
    return pairs
