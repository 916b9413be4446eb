"""A matrix of correlations whose diagonal is claimed to dominate: three ties, and the six that should be weaker."""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import product
from typing import TYPE_CHECKING

import numpy as np

from memspace.arguments import check_fields
from memspace.auditing.results import Figure, Series
from memspace.claims.effects import ANGLE, Effect, LeastEffect, StudentEffect, mean_of
from memspace.claims.evidence import Evidence, averaged
from memspace.claims.ranks import partial_correlation, percentiles
from memspace.claims.sampling import FEWEST, Floats, Sampling, codes_of, complete, numbers
from memspace.claims.statistic import statistic
from memspace.errors import SettingsError
from memspace.value import Absent, Value

if TYPE_CHECKING:
    import polars as pl

__all__ = ["Ties", "ties"]


@dataclass(frozen=True)
class Ties:
    """Arguments of the statistic ``ties``.

    Args:
        rows: columns of one side, each with a tie to the column of the other side at the same place.
        columns: columns of the other side; ``-`` before a name turns its sign, so that every tie is claimed positive.
        within: columns whose values two networks must share to be ranked together, for example the data set.

    Raises:
        SettingsError: the sides are not of one length, or shorter than two.
    """

    rows: tuple[str, ...]
    columns: tuple[str, ...]
    within: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        check_fields(self)
        if len(self.rows) != len(self.columns) or len(self.rows) < 2:
            raise SettingsError(
                f"{len(self.rows)} rows and {len(self.columns)} columns",
                where="statistic.columns",
                remedy="name as many on both sides, at least two",
            )


@dataclass(frozen=True)
class _Family:
    """Correlations of one family, and each tie less what it should exceed."""

    cells: dict[tuple[int, int], StudentEffect | Absent]
    dominance: Effect | Absent


@statistic(
    "ties",
    arguments=Ties,
    unit="1",
    estimator="least of Spearman's correlations on the diagonal less the size of those in its row and column",
    limits=("Ties of measures that share an ingredient are partly of their own making.",),
)
def ties(table: pl.DataFrame, arguments: Ties, sampling: Sampling) -> Evidence:
    """Compare every row with every column, and the diagonal with the rest of its row and column.

    The diagonal dominates where ρ_ii > |ρ_ij| and ρ_ii > |ρ_ji| for all i ≠ j. The effect is the least of all
    ρ_ii ± ρ_ij and ρ_ii ± ρ_ji, above zero only where every one is.

    Args:
        table: a row a network.
        arguments: columns of both sides.
        sampling: families, unit of analysis, resamples.

    Returns:
        The least difference a family; the correlations, mean over families, as readings and as a table.
    """
    a = arguments
    names = [name.removeprefix("-") for name in (*a.rows, *a.columns)]
    rows = complete(table, names, a.within)
    families = {family: _family(of, a, sampling) for family, of in sampling.split(rows)}
    cells = {place: mean_of([f.cells[place] for f in families.values()]) for place in _places(a)}
    readings: dict[str, tuple[Value | Absent, str]] = {}
    listed: dict[str, list[object]] = {n: [] for n in ("row", "column", "correlation", "low", "high")}
    for (i, j), cell in cells.items():
        value = Value(math.nan, 0, reliable=False) if isinstance(cell, Absent) else cell.stated()
        readings[f"{a.rows[i]} and {a.columns[j]}"] = (cell if isinstance(cell, Absent) else value, "1")
        low, high = value.interval or (math.nan, math.nan)
        for column, entry in zip(listed.values(), (a.rows[i], a.columns[j], value.value, low, high), strict=True):
            column.append(entry)
    return Evidence(
        {"": averaged({name: family.dominance for name, family in families.items()})},
        rows.height,
        table.height - rows.height,
        readings,
        (_figure(cells, a),),
        {"correlations": listed},
    )


def _family(rows: pl.DataFrame, a: Ties, sampling: Sampling) -> _Family:
    units = sampling.units(rows)
    weights, count = sampling.resampled(units)
    if count < FEWEST:
        few = Absent(f"there are {count} units of analysis", f"train at least {FEWEST}")
        return _Family(dict.fromkeys(_places(a), few), few)
    strata = codes_of(rows, a.within)
    together = strata[:, None] == strata[None, :]
    both = np.concatenate([np.ones((1, rows.height)), weights])  # the estimate, then its resamples
    first, second = ([percentiles(both, _signed(rows, n), together) for n in names] for names in (a.rows, a.columns))
    drawn = {(i, j): partial_correlation(both, np.stack([first[i], second[j]], axis=2)) for i, j in _places(a)}
    cells = {place: sampling.effect(float(d[0]), d[1:], count, ANGLE) for place, d in drawn.items()}
    parts: dict[str, Effect] = {}
    for i, (j, k) in product(range(len(a.rows)), _places(a)):
        if (j == i) == (k == i):  # the diagonal itself, or neither in its row nor in its column
            continue
        for sign, word in ((1, "less"), (-1, "plus")):
            d = drawn[i, i] - sign * drawn[j, k]
            effect = sampling.effect(float(d[0]), d[1:], count)
            if isinstance(effect, Absent):
                return _Family(cells, effect)
            parts[f"{a.rows[i]} and {a.columns[i]}, {word} {a.rows[j]} and {a.columns[k]}"] = effect
    return _Family(cells, LeastEffect(parts))


def _places(a: Ties) -> list[tuple[int, int]]:
    """Row and column of every cell."""
    return [(i, j) for i in range(len(a.rows)) for j in range(len(a.columns))]


def _signed(rows: pl.DataFrame, name: str) -> Floats:
    return -numbers(rows, name[1:]) if name.startswith("-") else numbers(rows, name)


def _figure(cells: dict[tuple[int, int], Effect | Absent], a: Ties) -> Figure:
    """A group of bars a row, the tie that is claimed named in the hover text."""
    series = []
    for j, column in enumerate(a.columns):
        of = [cells[i, j] for i in range(len(a.rows))]
        values = [Value(math.nan, 0) if isinstance(c, Absent) else c.stated() for c in of]
        ends = [v.interval or (v.value, v.value) for v in values]
        text = ["claimed tie" if i == j else "should be weaker" for i in range(len(a.rows))]
        low, high = [e[0] for e in ends], [e[1] for e in ends]
        series.append(Series(column, list(a.rows), [v.value for v in values], "bar", low, high, text))
    caption = "Spearman's correlation, mean over families. The claim: the tie of each row is its tallest bar."
    return Figure("ties", "Every side with every other", caption, "", "correlation", tuple(series))
