"""What the sign of a measure's difference tells of the sign of the gap's, given hyper-parameters (Jiang et al. 2020).

K = min over sets S of at most two knobs of I(V_m; V_g | U_S) / H(V_g | U_S), over ordered pairs of networks. V_m and
V_g are the signs of the differences of measure and gap, U_S the settings of the knobs in S on both sides. K is 0 where
two knobs tell all that the measure does, and 1 where the measure settles every sign. A tie of the measure counts half
to either sign; pairs with equal gaps are left out. In a table of two knobs K is about what seeds differ in.

Estimated from counts, information is never negative and thus too large. So K comes with what it is for a measure that
knows nothing: the measure's values laid on the configurations in random order, its seeds staying together. Networks
are summed by configuration first; then all sets S are one product with the matrix of their settings.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import combinations, pairwise
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from scipy.special import xlogy

from memspace.intervals import of_share
from memspace.judging.design import JudgingDesign
from memspace.judging.kendall import block_sums, pair_signs
from memspace.judging.resampling import Resamples
from memspace.judging.tables import NetworkRows, rows_of
from memspace.value import Absent, Value

if TYPE_CHECKING:
    import polars as pl

__all__ = ["Information", "information"]

Floats = NDArray[np.float64]
Sums = NDArray[np.float32]
PERMUTATIONS = 100
DRAWS = 200


@dataclass(frozen=True)
class Information:
    """Conditional mutual information of a measure with the gap.

    Args:
        value: K, from 0 to 1; the interval holds the set of knobs.
        given: the knobs at which it is smallest.
        by_chance: mean of K of a measure that knows nothing.
        p: probability that such a measure has as large a K.
    """

    value: Value
    given: tuple[str, ...]
    by_chance: float
    p: float


@dataclass(frozen=True)
class _Sets:
    """Sets of knobs, each with the indicator of its joint settings: a slice of (configurations, settings of all)."""

    names: list[tuple[str, ...]]
    indicator: Sums
    slices: list[slice]

    def alone(self, k: int) -> _Sets:
        """One of them."""
        part = self.indicator[:, self.slices[k]]
        return _Sets([self.names[k]], part, [slice(0, part.shape[1])])


@dataclass(frozen=True)
class _Known:
    """Of one set: number of pairs and sum of the gap's signs in every pair of settings, and H(V_g | U) times pairs."""

    pairs: Floats
    gap: Floats
    uncertain: float


def information(
    table: pl.DataFrame,
    measure: str,
    design: JudgingDesign,
    *,
    most: int = 2,
    permutations: int = PERMUTATIONS,
    draws: int = DRAWS,
    seed: int = 0,
) -> Information | Absent:
    """Compute the conditional mutual information K of a measure with the gap.

    Args:
        table: one row a network (:mod:`memspace.judging`).
        measure: column of the measure.
        design: of the table.
        most: largest number of knobs that are given.
        permutations: of the measure over configurations, for what chance gives.
        draws: of the bootstrap over configurations.
        seed: of both.

    Returns:
        K with its 95% interval and what chance gives, or why there is none.
    """
    rows = rows_of(table, measure, design)
    if isinstance(rows, Absent):
        return rows
    sets, gap = _sets(rows, most), pair_signs(rows.gap)
    known = _known(sets, *_sums(rows, gap))
    ratios = _ratios(sets, known, *_sums(rows, gap, rows.measure))
    if np.isnan(ratios).all():
        return Absent("the sign of the gap is settled by the knobs", "take more networks of a configuration")
    smallest = int(np.nanargmin(ratios))
    rng = np.random.default_rng(seed)
    chance = np.array(
        [np.nanmin(_ratios(sets, known, *_sums(rows, gap, _permuted(rows, rng)))) for _ in range(permutations)]
    )
    above = float((chance >= ratios[smallest]).sum())
    value = _value(rows, gap, sets.alone(smallest), Resamples.of(rows.configurations, draws, seed), len(ratios))
    mean = float(chance.mean()) if permutations else math.nan
    return Information(value, sets.names[smallest], mean, (1 + above) / (1 + permutations))


def _sets(rows: NetworkRows, most: int) -> _Sets:
    """Sets of at most so many of the knobs that vary."""
    varied = [k for k in range(rows.settings.shape[1]) if len(np.unique(rows.settings[:, k])) > 1]
    names, parts = [], []
    for chosen in (c for size in range(most + 1) for c in combinations(varied, size)):
        _, code = np.unique(rows.settings[:, chosen], axis=0, return_inverse=True)
        parts.append(np.eye(int(code.max()) + 1, dtype=np.float32)[code.ravel()])
        names.append(tuple(rows.design.knobs[k] for k in chosen))
    ends = np.cumsum([0, *(p.shape[1] for p in parts)])
    return _Sets(names, np.concatenate(parts, 1), [slice(a, b) for a, b in pairwise(ends)])


def _sums(rows: NetworkRows, gap: Sums, measure: Floats | None = None) -> tuple[Sums, Sums]:
    """Sums over pairs of networks by pairs of configurations.

    Of ones and the gap's sign; of the measure's sign and the product of both, where a measure is given.
    """
    if measure is None:
        return block_sums(np.abs(gap), rows.configuration), block_sums(gap, rows.configuration)
    signs = pair_signs(measure)
    both = block_sums(signs * gap, rows.configuration)
    if np.count_nonzero(gap) < rows.n * (rows.n - 1):  # some gaps are equal
        signs *= np.abs(gap)
    return block_sums(signs, rows.configuration), both


def _permuted(rows: NetworkRows, rng: np.random.Generator) -> Floats:
    """The measure laid on the configurations in random order, its seeds together where their number allows."""
    blocks = np.split(np.arange(rows.n), np.flatnonzero(np.diff(rows.configuration)) + 1)
    taken, placed = (np.concatenate([blocks[k] for k in rng.permutation(len(blocks))]) for _ in range(2))
    mixed = np.empty(rows.n)
    mixed[placed] = rows.measure[taken]
    return mixed


def _known(sets: _Sets, ones: Sums, gap: Sums, counts: Sums | None = None) -> list[_Known]:
    """What does not depend on the measure, of every set."""
    cells = zip(_cells(sets, ones, counts), _cells(sets, gap, counts), strict=True)
    return [_Known(n, g, _entropy(n) - 2 * _entropy((n + g) / 2)) for n, g in cells]


def _ratios(sets: _Sets, known: list[_Known], measure: Sums, both: Sums, counts: Sums | None = None) -> Floats:
    """I(V_m; V_g | U) / H(V_g | U) of every set of knobs, NaN where the gap's sign is certain.

    Of every sum of n log n over ordered pairs of settings half is computed: swapping the networks turns both signs.
    """
    ratios = []
    for k, m, b in zip(known, _cells(sets, measure, counts), _cells(sets, both, counts), strict=True):
        if k.uncertain <= 1e-9 * max(1.0, float(k.pairs.sum())):
            ratios.append(math.nan)
            continue
        joint = 2 * _entropy((k.pairs + m + k.gap + b) / 4) + 2 * _entropy((k.pairs + m - k.gap - b) / 4)
        ratio = (joint - 2 * _entropy((k.pairs + m) / 2) + k.uncertain) / k.uncertain
        ratios.append(min(max(round(ratio, 12), 0.0), 1.0))
    return np.array(ratios)


def _cells(sets: _Sets, sums: Sums, counts: Sums | None) -> list[Floats]:
    """Sums over pairs of configurations in every pair of settings, (settings, settings) of every set.

    A pair of configurations counts as often as both were drawn together, pairs of seeds as often as theirs was.
    """
    z = sets.indicator if counts is None else sets.indicator * counts[:, None]
    half = sums @ z
    made = [(z[:, s].T @ half[:, s]).astype(np.float64) for s in sets.slices]
    if counts is not None:
        surplus = ((counts**2 - counts) * np.diagonal(sums)) @ sets.indicator
        for cell, s in zip(made, sets.slices, strict=True):
            cell[np.diag_indices(len(cell))] -= surplus[s]
    return made


def _entropy(counts: Floats) -> float:
    """Σ n log n, of which entropies are differences."""
    return float(xlogy(np.maximum(counts, 0.0), np.maximum(counts, 1e-300)).sum())


def _value(rows: NetworkRows, gap: Sums, chosen: _Sets, resamples: Resamples, sets: int) -> Value:
    """K with its interval at the set of knobs where it is smallest."""
    shared, further = _sums(rows, gap), _sums(rows, gap, rows.measure)
    drawn = np.array([_ratios(chosen, _known(chosen, *shared, c), *further, c)[0] for c in resamples.counts])
    how = f"smallest over {sets} sets of knobs"
    if drawn[0] == 1:  # the share of pairs in order, when all disjoint ones are, as bits of one sign
        ends = of_share(rows.configurations // 2, rows.configurations // 2).ends or (0.0, 1.0)
        return Value(1.0, rows.n, (max(0.0, 1 - _bits(max(ends[0], 0.5))), 1.0), how)
    if np.nanmax(drawn) == 0:
        return Value(0.0, rows.n, None, how, note="the knobs settle the measure's sign")
    return resamples.value(drawn, rows.n, how=how)


def _bits(share: float) -> float:
    """Entropy of a coin, in bits."""
    return float(-(xlogy(share, share) + xlogy(1 - share, 1 - share)) / math.log(2))
