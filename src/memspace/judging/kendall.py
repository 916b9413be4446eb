"""Kendall's τ-b of a measure with the gap, its bootstrap interval over configurations, and the difference of two.

τ-b = Σ w_ij s_ij t_ij / √(Σ w_ij s_ij² · Σ w_ij t_ij²) over pairs of networks, with the signs s, t of the differences
of measure and gap. A pair from two configurations counts w = c_k c_l times where these were drawn c_k and c_l times, a
pair of seeds of one configuration c_k times: copies of a configuration are not compared with each other, which would
fill small tables with pairs that differ by the seed alone. So the signs are summed by configuration once, and a
thousand resamples are one product of small matrices.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from scipy.stats import rankdata

from memspace.judging.design import JudgingDesign
from memspace.judging.resampling import DRAWS, Correlation, Resamples
from memspace.judging.tables import NetworkRows, rows_of
from memspace.value import Absent, Value

if TYPE_CHECKING:
    import polars as pl

__all__ = ["block_sums", "compare", "kendall", "pair_signs", "quadratic", "tau_b", "taus"]

Floats = NDArray[np.float64]
Signs = NDArray[np.float32]


def kendall(
    table: pl.DataFrame, measure: str, design: JudgingDesign, *, draws: int = DRAWS, seed: int = 0
) -> Correlation | Absent:
    """Compute Kendall's τ-b of a measure with the gap, over all networks that have it.

    Args:
        table: one row a network (:mod:`memspace.judging`).
        measure: column of the measure.
        design: of the table; all networks of a configuration are resampled together.
        draws: of the bootstrap.
        seed: of the draws.

    Returns:
        τ from −1 to 1 with its 95% interval and probability of chance, or why there is none.
    """
    rows = rows_of(table, measure, design)
    if isinstance(rows, Absent):
        return rows
    resamples = Resamples.of(rows.configurations, draws, seed)
    numbers = taus(rows, resamples.counts)
    return resamples.correlation(numbers, rows.n, pairs=rows.configurations // 2, how=_how(rows))


def compare(
    table: pl.DataFrame, first: str, second: str, design: JudgingDesign, *, draws: int = DRAWS, seed: int = 0
) -> Value | Absent:
    """Compute how much larger one measure's τ with the gap is than another's, on networks that have both.

    Args:
        table: one row a network.
        first: column of a measure.
        second: column of the one that is subtracted.
        design: of the table.
        draws: of the bootstrap, the same for both.
        seed: of the draws.

    Returns:
        τ of the first less τ of the second with its 95% interval, or why there is none.
    """
    one = rows_of(table, first, design, (second,))
    other = rows_of(table, second, design, (first,))
    if isinstance(one, Absent):
        return one
    if isinstance(other, Absent):
        return other
    resamples = Resamples.of(one.configurations, draws, seed)
    numbers = taus(one, resamples.counts) - taus(other, resamples.counts)
    if not numbers.any():
        return Absent("both measures order the networks alike", "compare measures that differ")
    return resamples.value(numbers, one.n, how=_how(one))


def taus(rows: NetworkRows, counts: NDArray[np.float32]) -> Floats:
    """Compute τ-b for rows of counts.

    Args:
        rows: the networks.
        counts: (resamples, configurations) how often each counts.

    Returns:
        (resamples,) NaN where a resample holds ties only.
    """
    return tau_b(counts, pair_signs(rows.measure), pair_signs(rows.gap), rows.configuration)


def pair_signs(values: Any) -> Signs:
    """Compute the signs of all differences.

    Args:
        values: (n,) numbers, infinite ones allowed.

    Returns:
        (n, n) of −1, 0 and 1: sign(values_i − values_j).
    """
    ranks = rankdata(values, "dense").astype(np.float32)
    apart = ranks[:, None] - ranks[None, :]
    return np.clip(apart, -1, 1, out=apart)


def block_sums(matrix: Signs, unit: NDArray[np.int64]) -> Signs:
    """Sum a matrix over pairs of networks by pairs of configurations.

    Args:
        matrix: (n, n).
        unit: (n,) configuration of each network, not decreasing.

    Returns:
        (configurations, configurations) of those that occur.
    """
    starts = np.flatnonzero(np.diff(unit, prepend=-1))
    if len(starts) == len(unit):
        return matrix
    ends = [*starts, len(unit)]
    member = sparse.csr_array((np.ones(len(unit), np.float32), np.arange(len(unit)), ends), (len(starts), len(unit)))
    return np.ascontiguousarray((member @ (member @ matrix).T).T)


def tau_b(counts: NDArray[Any], first: Signs, second: Signs, unit: NDArray[np.int64]) -> Floats:
    """Compute τ-b of signs for rows of counts.

    Args:
        counts: (resamples, configurations) how often each counts, of those that occur.
        first: (n, n) signs of the differences of one column.
        second: (n, n) of the other.
        unit: (n,) configuration of each network, not decreasing.

    Returns:
        (resamples,) NaN where one side has ties only.
    """
    above, one, other = (
        quadratic(counts, block_sums(m, unit)) for m in (first * second, np.abs(first), np.abs(second))
    )
    below = one * other
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(below > 0, above / np.sqrt(below), np.nan)


def quadratic(counts: NDArray[Any], sums: Signs) -> Floats:
    """Compute Σ_{k≠l} c_k c_l m_kl + Σ_k c_k m_kk for rows of counts; exact where these are whole.

    Args:
        counts: (resamples, configurations).
        sums: (configurations, configurations) the sums m.

    Returns:
        (resamples,).
    """
    within = np.diagonal(sums)
    between = np.matmul(counts, sums) - counts * within
    return np.asarray((between * counts).sum(-1, dtype=np.float64) + (counts * within).sum(-1, dtype=np.float64))


def _how(rows: NetworkRows) -> str:
    return f"τ-b, {rows.configurations} configurations"
