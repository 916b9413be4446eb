"""Units that detect a concept: more than any unit does when concepts are shuffled between examples.

The concept of a unit is chosen on one half of the examples, so on the other half there is one score a unit. Scores are
standardised by their own mean and deviation over the shuffles, the score itself among them. The largest of all units
in each shuffle then corrects for their number (Westfall & Young 1993): whatever the network, a concept that has
nothing to do with it makes any unit a detector in at most one of twenty readings.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from memspace.intervals import LEVEL
from memspace.reading.unit_scores import Chosen, ChosenUnits, UnitScore

__all__ = ["CHANCE", "Activations", "Basis", "Detectors", "ExampleHalves", "RotatedBasis", "rotate_units", "test_units"]

CHANCE = 0.05  # of any detector at all where concepts mean nothing

Floats = NDArray[np.float64]
Masks = NDArray[np.bool_]
Activations = Callable[[Floats | None], Floats]  # a rotation, or None ↦ activations of all examples


@dataclass(frozen=True)
class ExampleHalves:
    """Examples on which concepts are chosen, and the others, on which they are judged.

    Args:
        choosing: (a,) positions.
        judging: (m,) positions.
        orders: (B, m) permutations of the judging examples.
    """

    choosing: NDArray[np.int64]
    judging: NDArray[np.int64]
    orders: NDArray[np.int64]

    @staticmethod
    def draw(n: int, shuffles: int, seed: int) -> ExampleHalves:
        """Draw halves and permutations.

        Args:
            n: examples.
            shuffles: B.
            seed: of the draws.

        Returns:
            the halves, disjoint.
        """
        generator = np.random.default_rng(seed + 71)
        order = generator.permutation(n)
        judging = np.sort(order[n // 2 :])
        orders = np.stack([generator.permutation(len(judging)) for _ in range(shuffles)])
        return ExampleHalves(np.sort(order[: n // 2]), judging, orders)


@dataclass(frozen=True)
class Basis:
    """Units, or other directions, against concepts.

    Args:
        chosen: concept and threshold of each, from the first half.
        score: (U,) on the other half.
        chance: (U,) how probable it is that any unit stands out as far where concepts are shuffled.
        detects: (U,) whether each is a detector.
        shuffled: (B,) number of detectors where concepts are shuffled.
    """

    chosen: Chosen
    score: Floats
    chance: Floats
    detects: Masks
    shuffled: NDArray[np.int64]

    @property
    def count(self) -> int:
        """Number of detectors."""
        return int(self.detects.sum())

    @property
    def distinct(self) -> int:
        """Number of concepts that have a detector."""
        return len(np.unique(self.chosen.concept[self.detects]))


@dataclass(frozen=True)
class Detectors:
    """The units of a layer against concepts.

    Args:
        basis: the units that vary.
        units: (U,) their numbers in the layer.
        low: (U,) lower ends of 95% intervals of the scores.
        high: (U,) upper ends.
        between: lower and upper end of the number of units whose true score is at least the least.
        distinct_between: likewise of the concepts that have such a unit.
        mean_error: standard error of the mean score over units.
        again: (U,) whether the other half would have chosen the same concept.
        least: score from which on a unit counts.
        n: judging examples.
    """

    basis: Basis
    units: NDArray[np.int64]
    low: Floats
    high: Floats
    between: tuple[float, float]
    distinct_between: tuple[float, float]
    mean_error: float
    again: Masks
    least: float
    n: int


@dataclass(frozen=True)
class RotatedBasis:
    """The same counts where the units are rotated at random.

    Args:
        counts: (R,) number of detectors.
        distinct: (R,) number of concepts with a detector.
        means: (R,) mean score.
        curves: (R, U) scores, largest first.
        concepts: (R, K) detectors of each concept.
    """

    counts: Floats
    distinct: Floats
    means: Floats
    curves: Floats
    concepts: Floats


def test_units(
    score: UnitScore, a: Floats, c: Masks, halves: ExampleHalves, units: NDArray[np.int64], least: float
) -> Detectors:
    """Test every unit at the concept that suits it best.

    Args:
        score: how a unit is compared with a concept.
        a: activations (n, U) or (n, P, U) of units that vary.
        c: concepts (n, K) or (n, P, K).
        halves: of the examples, with shuffles.
        units: (U,) numbers of the units in the layer.
        least: score from which on a unit that stands out from the shuffles is a detector.

    Returns:
        the units with intervals.
    """
    first, other = halves.choosing, halves.judging
    chosen = score.choose(a[first], c[first])
    basis, at = _basis(score, a[other], c[other], chosen, halves.orders, least)
    low, high = at.ends()
    surely = at.ends(1 - (1 - LEVEL) / len(units))  # all of them at once
    inside, reached = basis.detects & (surely[0] >= least), surely[1] >= least
    between = float(inside.sum()), float(reached.sum())
    distinct = tuple(float(len(np.unique(chosen.concept[some]))) for some in (inside, reached))
    error = float(np.sqrt((at.parts.mean(1) ** 2).sum()))
    again = score.choose(a[other], c[other]).concept == chosen.concept
    return Detectors(basis, units, low, high, between, (distinct[0], distinct[1]), error, again, least, len(other))


def rotate_units(
    score: UnitScore,
    activations: Activations,
    c: Masks,
    halves: ExampleHalves,
    rotations: Iterable[Floats],
    least: float,
) -> RotatedBasis:
    """Test random directions instead of units: the layer holds the same, but no axis is special.

    Args:
        score: how a unit is compared with a concept.
        activations: of the examples after a rotation (U, U) of the units that vary.
        c: concepts (n, K) or (n, P, K).
        halves: of the examples, with shuffles.
        rotations: (U, U) each.
        least: score from which on a direction is a detector.

    Returns:
        counts and scores by rotation.
    """
    first, other = halves.choosing, halves.judging
    made = []
    for q in rotations:
        a = activations(q)
        chosen = score.choose(a[first], c[first])
        made.append(_basis(score, a[other], c[other], chosen, halves.orders, least)[0])
    concepts = [np.bincount(b.chosen.concept[b.detects], minlength=c.shape[-1]) for b in made]
    return RotatedBasis(
        np.array([b.count for b in made], dtype=np.float64),
        np.array([b.distinct for b in made], dtype=np.float64),
        np.array([b.score.mean() for b in made]),
        np.stack([np.sort(b.score)[::-1] for b in made]),
        np.stack(concepts).astype(np.float64),
    )


def _basis(
    score: UnitScore, a: Floats, c: Masks, chosen: Chosen, orders: NDArray[np.int64], least: float
) -> tuple[Basis, ChosenUnits]:
    """Scores at chosen concepts, against the largest standardised score of each shuffle."""
    at = score.at(a, c, chosen)
    shuffled = at.shuffled(orders)
    every = np.concatenate([at.scores[None], shuffled])
    spread = every.std(0)
    standard = (every - every.mean(0)) / np.where(spread > 1e-12, spread, np.inf)
    largest = np.sort(standard[1:].max(1))
    reached = len(largest) - np.searchsorted(largest, standard, side="left")  # shuffles in which a unit gets as far
    chance = (1 + reached[0]) / len(every)
    detects = (chance <= CHANCE) & (at.scores >= least)
    counts = ((reached[1:] / len(every) <= CHANCE) & (shuffled >= least)).sum(1)
    return Basis(chosen, at.scores, chance, detects, counts), at
