"""Rank correlation of a measure with the gap given other columns: training loss, hyper-parameters, parameter counts.

With the matrix of rank correlations of measure, gap and given columns, and P its inverse, the partial correlation is
−P_mg / √(P_mm P_gg). Spearman's takes ranks, and a given column of words as a column for every word. Kendall's takes
signs of differences over pairs of networks, and compares only pairs that agree in every given column of words. Whether
a network has a knob of numbers at all is such a word; one that lacks another given number is left out.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from memspace.judging.design import JudgingDesign
from memspace.judging.kendall import block_sums, pair_signs
from memspace.judging.resampling import Correlation, Jackknife
from memspace.judging.tables import NetworkRows, codes, rows_of
from memspace.value import Absent

if TYPE_CHECKING:
    import polars as pl

__all__ = ["Partial", "partial"]

Floats = NDArray[np.float64]
Codes = NDArray[np.int64]
SETTLED = 1e-6  # share of a column's variance below which the given columns settle it
AT_ONCE = 2**24


@dataclass(frozen=True)
class Partial:
    """Rank correlation of measure and gap given other columns.

    Args:
        kendall: partial τ.
        spearman: partial ρ.
        given: the columns.
    """

    kendall: Correlation | Absent
    spearman: Correlation | Absent
    given: tuple[str, ...]


def partial(
    table: pl.DataFrame, measure: str, design: JudgingDesign, *, given: Sequence[str] | None = None
) -> Partial | Absent:
    """Compute partial rank correlations of a measure with the gap.

    Args:
        table: one row a network (:mod:`memspace.judging`).
        measure: column of the measure.
        design: of the table.
        given: the other columns, numbers or words; by default all knobs and ``design.given``.

    Returns:
        Both with 95% intervals (:class:`~memspace.judging.resampling.Jackknife`); absent where the given columns
        settle measure or gap.
    """
    names = tuple(dict.fromkeys((*design.knobs, *design.given) if given is None else given))
    names = tuple(n for n in names if n != measure)
    missing = [n for n in names if n not in table.columns]
    if missing:
        return Absent(f"the table has no column {missing[0]!r}", "add it, or give other columns")
    numeric = [n for n in names if table.schema[n].is_numeric()]
    rows = rows_of(table, measure, design, [n for n in numeric if n not in design.knobs])
    if isinstance(rows, Absent):
        return rows
    words = [rows.frame[n] for n in names if n not in numeric]
    words += [rows.frame[n].is_null() for n in numeric if rows.frame[n].null_count()]
    values = [rows.frame[n].fill_null(0).to_numpy().astype(np.float64) for n in numeric if rows.frame[n].n_unique() > 1]
    columns, code = [rows.measure, rows.gap, *values], codes(words, rows.n)
    jackknife = Jackknife.of(rows.configurations)
    how = f"given {', '.join(names)}" if names else ""
    results: list[Correlation | Absent] = []
    for numbers in (_kendall(rows, columns, code), _spearman(rows, columns, code, jackknife.counts)):
        if np.isfinite(numbers[0]):
            results.append(jackknife.correlation(numbers, rows.n, pairs=rows.configurations // 2, how=how))
        else:
            results.append(Absent("the given columns settle the measure or the gap", "give fewer columns"))
    return Partial(results[0], results[1], names)


def _kendall(rows: NetworkRows, columns: Sequence[Floats], code: Codes) -> Floats:
    """Partial τ of the table, without each configuration, and with each counted a little more.

    The sums over pairs are quadratic in the counts, so those of all three follow from the sums of each row.
    """
    alike = np.ones((rows.n, rows.n), np.float32)
    for k in range(code.shape[1]):
        alike *= code[:, k, None] == code[None, :, k]
    signs = [pair_signs(c) * alike for c in columns]
    size = len(columns)
    gram = np.empty((1 + 2 * rows.configurations, size, size))
    for a in range(size):
        for b in range(a + 1):
            gram[:, a, b] = gram[:, b, a] = _changed(block_sums(signs[a] * signs[b], rows.configuration))
    return _partial(gram)


def _changed(sums: NDArray[np.float32]) -> Floats:
    """A sum over pairs, without each configuration, and with each counted 1 + ε times: ε is that of Jackknife."""
    more = float(Jackknife.of(1).counts[2, 0]) - 1
    total, row = float(sums.sum(dtype=np.float64)), sums.sum(1, dtype=np.float64)
    within = np.diagonal(sums).astype(np.float64)
    return np.concatenate([[total], total - 2 * row + within, total + more * (2 * (row - within) + within)])


def _spearman(rows: NetworkRows, columns: Sequence[Floats], code: Codes, counts: Floats) -> Floats:
    """Partial ρ for rows of counts, the networks ranked again in each."""
    times = counts[:, rows.configuration]
    dummies = [(code[:, k] == v).astype(np.float64) for k in range(code.shape[1]) for v in np.unique(code[:, k])[1:]]
    fixed = np.stack(dummies, 1) if dummies else np.zeros((rows.n, 0))
    signs = [pair_signs(c) for c in columns]
    step = max(1, AT_ONCE // (rows.n * (len(columns) + fixed.shape[1])))
    gram = []
    for start in range(0, len(times), step):
        part = times[start : start + step]
        ranks = [-(part.astype(np.float32) @ s).astype(np.float64) for s in signs]
        x = np.concatenate([np.stack(ranks, 2), np.broadcast_to(fixed, (len(part), *fixed.shape))], 2)
        x = x - np.einsum("rn,rnp->rp", part, x)[:, None] / part.sum(1)[:, None, None]
        gram.append(np.einsum("rnp,rnq->rpq", x * part[:, :, None], x))
    return _partial(np.concatenate(gram))


def _partial(gram: Floats) -> Floats:
    """Correlation of the first two columns given the others, from sums of products; NaN where these settle one."""
    others = gram[:, 2:, 2:]
    scale = np.sqrt(np.maximum(np.diagonal(others, axis1=1, axis2=2), 1e-300))
    inverse = np.linalg.pinv(others / (scale[:, :, None] * scale[:, None]), rcond=1e-10, hermitian=True)
    across = gram[:, :2, 2:] / scale[:, None]
    left = gram[:, :2, :2] - across @ inverse @ np.swapaxes(across, 1, 2)
    first, second = left[:, 0, 0], left[:, 1, 1]
    known = (first > SETTLED * gram[:, 0, 0]) & (second > SETTLED * gram[:, 1, 1])
    root = np.sqrt(np.where(known, first * second, 1.0))
    return np.where(known, np.clip(left[:, 0, 1] / root, -1.0, 1.0), np.nan)
