"""How a statistic looks at a table: families, the unit of analysis, and resamples of whole units."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from memspace.claims.effects import PLAIN, Scale, StudentEffect
from memspace.errors import DataError
from memspace.value import Absent

if TYPE_CHECKING:
    import polars as pl

__all__ = ["FEWEST", "Codes", "Floats", "Sampling", "codes_of", "columns_of", "complete", "numbers", "ratio"]

Floats = NDArray[np.float64]
Codes = NDArray[np.int64]
FEWEST = 5  # units below which a bootstrap says nothing
LOST = 0.1  # share of resamples without a value from which on the others are not trusted


def codes_of(table: pl.DataFrame, columns: Sequence[str]) -> Codes:
    """Give combinations of values of some columns numbers, in the order in which they first come.

    Args:
        table: of n rows.
        columns: names; without any, all rows are alike.

    Returns:
        (n,) whole numbers from 0.
    """
    if not columns:
        return np.zeros(table.height, dtype=np.int64)
    known: dict[tuple[Any, ...], int] = {}
    return np.array([known.setdefault(row, len(known)) for row in table.select(columns).iter_rows()], dtype=np.int64)


def columns_of(table: pl.DataFrame, columns: Sequence[str]) -> None:
    """Refuse a table that lacks a column.

    Args:
        table: of the population.
        columns: that are needed.

    Raises:
        DataError: one is missing.
    """
    for name in columns:
        if name not in table.columns:
            known = ", ".join(table.columns[:20])
            raise DataError(f"the table has no column {name!r}", where="statistic", remedy=f"it has {known}")


def complete(table: pl.DataFrame, numeric: Sequence[str], others: Sequence[str] = ()) -> pl.DataFrame:
    """Leave out the rows that lack a value.

    Args:
        table: of the population.
        numeric: columns of numbers; infinite ones and NaN count as lacking.
        others: further columns.

    Returns:
        The rows that have all, the columns of numbers as floats.

    Raises:
        DataError: a column is missing, or one of numbers holds something else.
    """
    import polars as pl

    columns_of(table, [*numeric, *others])
    for name in numeric:
        if not (table.schema[name].is_numeric() or table.schema[name] in (pl.Boolean, pl.Null)):
            raise DataError(
                f"the column {name!r} holds no numbers", where="statistic", remedy="name another in the registration"
            )
    table = table.with_columns(pl.col(n).cast(pl.Float64) for n in dict.fromkeys(numeric))
    usable = [pl.col(n).is_finite().fill_null(False) for n in numeric] + [pl.col(n).is_not_null() for n in others]
    return table.filter(pl.all_horizontal(usable)) if usable else table


def numbers(table: pl.DataFrame, column: str) -> Floats:
    """Give a column of numbers.

    Args:
        table: of n rows.
        column: its name.

    Returns:
        (n,).
    """
    return np.asarray(table[column].to_numpy(), dtype=np.float64)


def ratio(above: Floats, below: Floats) -> Floats:
    """Compute a ratio where it is defined.

    Args:
        above: numerators.
        below: denominators of the same shape.

    Returns:
        NaN where the denominator is not positive.
    """
    undefined = np.full(above.shape, np.nan)
    return np.asarray(np.divide(above, below, out=undefined, where=below > 0), dtype=np.float64)


@dataclass(frozen=True)
class Sampling:
    """How a statistic resamples.

    Args:
        unit: columns that together name the unit of analysis.
        families: those of the population.
        draws: resamples.
        seed: of the resamples.
        readings: whether more than the effects is looked at; a control needs no more.
    """

    unit: tuple[str, ...]
    families: tuple[str, ...]
    draws: int = 1000
    seed: int = 0
    readings: bool = True

    def split(self, table: pl.DataFrame) -> Iterator[tuple[str, pl.DataFrame]]:
        """Split a table by family.

        Args:
            table: with a column ``family``.

        Yields:
            Each family of the population with its rows, which may be none.
        """
        import polars as pl

        for family in self.families:
            yield family, table.filter(pl.col("family") == family)

    def units(self, table: pl.DataFrame) -> Codes:
        """Give each row the number of its unit of analysis.

        Args:
            table: of n rows.

        Returns:
            (n,) whole numbers from 0.

        Raises:
            DataError: a column of the unit is missing.
        """
        columns_of(table, self.unit)
        return codes_of(table, self.unit)

    def resampled(self, units: Codes) -> tuple[Floats, int]:
        """Draw units with replacement.

        Args:
            units: (n,) unit of each row.

        Returns:
            (draws, n), how often each row is in each resample; and the number of units.
        """
        count = int(units.max()) + 1 if len(units) else 0
        generator = np.random.default_rng(self.seed)
        drawn = generator.multinomial(count, np.full(count, 1 / count), size=self.draws) if count else np.zeros((0, 0))
        return np.asarray(drawn[:, units], dtype=np.float64), count

    def effect(self, value: float, draws: Floats, count: int, scale: Scale = PLAIN) -> StudentEffect | Absent:
        """Make an effect of an estimate and its bootstrap.

        The error is the spread of the resamples on the scale, enlarged by √(m/(m−1)) since m units drawn from m vary
        less than m units drawn from all; the interval is Student's with m − 1 degrees of freedom.

        Args:
            value: the estimate.
            draws: its value in each resample; NaN where a resample has none.
            count: units.
            scale: of the error.

        Returns:
            The effect; absent where there is no estimate, or units are too few.
        """
        if count < FEWEST:
            return Absent(f"there are {count} units of analysis", f"train at least {FEWEST}")
        usable = draws[np.isfinite(draws)]
        if not np.isfinite(value) or len(usable) < (1 - LOST) * len(draws):
            return Absent("the statistic is not defined on these networks", "vary the networks more")
        placed = np.array([scale.to(float(v)) for v in usable])
        placed = placed[np.isfinite(placed)]
        spread = float(placed.std(ddof=1)) if len(placed) > 1 else 0.0
        return StudentEffect(value, spread * (count / (count - 1)) ** 0.5, count - 1, count, scale)

    def bootstrap(
        self, units: Codes, statistic: Callable[[Floats], Floats], scale: Scale = PLAIN
    ) -> StudentEffect | Absent:
        """Estimate a statistic of weighted rows with its error.

        Args:
            units: (n,) unit of each row.
            statistic: from (B, n) weights to (B,) values.
            scale: of the error.

        Returns:
            The effect; see :meth:`effect`.
        """
        weights, count = self.resampled(units)
        if count < FEWEST:
            return Absent(f"there are {count} units of analysis", f"train at least {FEWEST}")
        value = float(statistic(np.ones((1, len(units))))[0])
        return self.effect(value, statistic(weights), count, scale)
