"""A table of networks read for one measure: the gap, the measure and the configuration of every network that has it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from memspace.errors import DataError, SettingsError
from memspace.frames import polars
from memspace.judging.design import GAPS, JudgingDesign
from memspace.value import Absent

if TYPE_CHECKING:
    import polars as pl

__all__ = ["NetworkRows", "codes", "gap_of", "networks", "rows_of", "settings"]

Floats = NDArray[np.float64]
Codes = NDArray[np.int64]
WHERE = "memspace.judging"
FEWEST_ROWS, FEWEST_CONFIGURATIONS = 8, 4  # below, no statistic over networks means anything


@dataclass(frozen=True)
class NetworkRows:
    """The networks that have gap and measure, one configuration after the other.

    Args:
        frame: (n rows) their part of the table.
        measure: (n,) values; infinite ones rank at their end.
        gap: (n,) in nats or as a share.
        configuration: (n,) number of the configuration, from 0, not decreasing.
        settings: (configurations, knobs) number of each knob's setting.
        design: the design of the table.
    """

    frame: pl.DataFrame
    measure: Floats
    gap: Floats
    configuration: Codes
    settings: Codes
    design: JudgingDesign

    @property
    def n(self) -> int:
        """Number of networks."""
        return len(self.gap)

    @property
    def configurations(self) -> int:
        """Number of configurations."""
        return len(self.settings)


def networks(table: pl.DataFrame, design: JudgingDesign, columns: Sequence[str] = ()) -> pl.DataFrame:
    """Check a table of networks, and make NaN null.

    Args:
        table: one row a network.
        design: names the columns that it must have.
        columns: further columns that it must have, the measures.

    Returns:
        The table, NaN replaced by null.

    Raises:
        DataError: a column is missing, a measure is no number, or a key occurs twice.
        SettingsError: it is no polars frame.
    """
    frames = polars()
    if not isinstance(table, frames.DataFrame):
        raise SettingsError(
            f"the table is a {type(table).__name__}", where=WHERE, remedy="give a polars DataFrame, one row a network"
        )
    missing = [c for c in (*design.columns, *columns) if c not in table.columns]
    if missing:
        raise DataError(f"the table has no column {missing[0]!r}", where=WHERE, remedy="add it or change the design")
    words = [c for c in (*columns, *GAPS[design.gap]) if not table.schema[c].is_numeric()]
    if words:
        raise DataError(f"column {words[0]!r} holds no numbers", where=WHERE, remedy="give measures as numbers")
    if "key" in table.columns and table["key"].n_unique() < table.height:
        raise DataError("a network occurs more than once", where=WHERE, remedy="give one moment of its training only")
    read: pl.DataFrame = table.fill_nan(None)
    return read


def gap_of(table: pl.DataFrame, design: JudgingDesign) -> Floats:
    """Compute the gap of every network.

    Args:
        table: one row a network, from :func:`networks`.
        design: says which gap.

    Returns:
        (n,) in nats or as a share; NaN where an outcome is missing or not finite.
    """
    first, second = GAPS[design.gap]
    gap = _numbers(table, first) - _numbers(table, second)
    return np.where(np.isfinite(gap), gap, np.nan)


def rows_of(
    table: pl.DataFrame, measure: str | None, design: JudgingDesign, besides: Sequence[str] = ()
) -> NetworkRows | Absent:
    """Read the networks that have a measure.

    Args:
        table: one row a network.
        measure: its column; None for all networks that have the gap, which then stands for the measure.
        design: of the table.
        besides: columns of numbers that must be there too.

    Returns:
        The rows; absent where they are too few, or the measure or the gap is the same everywhere.

    Raises:
        DataError: a column is missing, a measure is no number, or a key occurs twice.
    """
    wanted = besides if measure is None else (measure, *besides)
    read = networks(table, design, wanted)
    present = ~np.isnan(gap_of(read, design))
    for column in wanted:
        present &= ~np.isnan(_numbers(read, column))
    read = read.filter(present)
    settled = settings(read, design.knobs)
    unique, configuration = np.unique(settled, axis=0, return_inverse=True)
    order = np.argsort(configuration.ravel(), kind="stable")
    read = read[order]
    gap = gap_of(read, design)
    values = gap if measure is None else _numbers(read, measure)
    if read.height < FEWEST_ROWS or len(unique) < FEWEST_CONFIGURATIONS:
        counted = f"{read.height} networks of {len(unique)} configurations have it"
        return Absent(
            counted, f"measure it on {FEWEST_ROWS} networks of {FEWEST_CONFIGURATIONS} configurations or more"
        )
    for name, numbers in (("the measure", values), ("the gap", gap)):
        if numbers.min() == numbers.max():
            return Absent(f"{name} is the same on all networks that have it", "take networks on which it differs")
    return NetworkRows(read, values, gap, configuration.ravel()[order], unique, design)


def settings(table: pl.DataFrame, columns: Sequence[str]) -> Codes:
    """Encode the settings of columns as whole numbers, equal ones alike.

    Args:
        table: any.
        columns: of numbers or strings; null is a setting like any other.

    Returns:
        (n, columns) whole numbers from 0, numbers in their order, strings in the alphabet's, null first.
    """
    return codes([table[c] for c in columns], table.height)


def codes(columns: Sequence[pl.Series], n: int) -> Codes:
    """Encode columns as whole numbers, equal values alike.

    Args:
        columns: (n,) numbers, truth values or strings; null is a value like any other.
        n: their length.

    Returns:
        (n, columns) as :func:`settings` numbers them.
    """
    numbered = [np.unique(_ordered(c), return_inverse=True)[1].ravel() for c in columns]
    return np.stack(numbered, 1).astype(np.int64) if numbered else np.zeros((n, 0), np.int64)


def _ordered(column: pl.Series) -> NDArray[Any]:
    """The column as an array that sorts: numbers as they are, null before them."""
    frames = polars()
    if column.dtype.is_numeric():
        return column.cast(frames.Float64).fill_null(-np.inf).to_numpy()
    return np.array(["" if v is None else f" {v}" for v in column.to_list()])


def _numbers(table: pl.DataFrame, column: str) -> Floats:
    """A column as float64, NaN where it is null."""
    frames = polars()
    return np.asarray(table[column].cast(frames.Float64).fill_null(np.nan).to_numpy(), np.float64)
