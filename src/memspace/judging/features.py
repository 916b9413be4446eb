"""Columns by which the gap is predicted: hyper-parameters in logarithms with squares and products, and measures.

- A knob of numbers enters as log x, where it reaches zero as log(x + smallest positive value); with three values or
  more its square too, and its product with every other. A network without the knob has the mean, and a column says so.
- A knob of strings enters as a column of 0 and 1 for every setting. A setting that was left out, and has none then,
  is predicted by the mean of the others.
- A measure that is positive everywhere enters as log m, any other as arsinh(m / median |m|): logarithms at both ends.

Numbers are standardised over the table, which changes no least-squares prediction.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    import polars as pl

__all__ = ["evened", "knob_features", "measure_features"]

Floats = NDArray[np.float64]


def knob_features(table: pl.DataFrame, knobs: Sequence[str]) -> Floats:
    """Make the columns of hyper-parameters.

    Args:
        table: one row a network.
        knobs: its hyper-parameters.

    Returns:
        (n, columns), those that are the same everywhere left out.
    """
    numbers: list[tuple[Floats, int]] = []
    other: list[Floats] = []
    for knob in knobs:
        column = table[knob]
        if column.dtype.is_numeric():
            x = column.cast(float).fill_null(np.nan).to_numpy().astype(np.float64)
            there = ~np.isnan(x)
            if there.any():
                numbers.append((_filled(_log(x, there), there), len(np.unique(x[there]))))
            if not there.all():
                other.append((~there).astype(np.float64))
        else:
            words = np.array([str(v) for v in column.to_list()])
            settings = np.unique(words)
            other += [(words == w).astype(np.float64) for w in settings if len(settings) > 1]
    logs = [x for x, _ in numbers]
    squares = [x**2 for x, values in numbers if values > 2]
    products = [a * b for a, b in combinations([x for x, values in numbers if values > 1], 2)]
    flags = [np.stack(other, 1)] if other else []
    return np.concatenate([_standard([*logs, *squares, *products], table.height), *flags], 1)


def measure_features(table: pl.DataFrame, measures: Sequence[str]) -> Floats:
    """Make the columns of measures.

    Args:
        table: one row a network, on which all of them are finite.
        measures: their columns.

    Returns:
        (n, measures) standardised, those that are the same everywhere left out.
    """
    return _standard([evened(table[name].to_numpy().astype(np.float64)) for name in measures], table.height)


def evened(values: Floats) -> Floats:
    """Put a measure on a scale on which its networks are spread evenly.

    Args:
        values: (n,) finite.

    Returns:
        (n,) log m where it is positive everywhere, else arsinh(m / median |m|).
    """
    if values.min() > 0:
        return np.asarray(np.log(values))
    scale = float(np.median(np.abs(values))) or float(np.abs(values).max()) or 1.0
    return np.asarray(np.arcsinh(values / scale))


def _log(x: Floats, there: NDArray[np.bool_]) -> Floats:
    """Logarithm of a knob; one that has negative values is taken as it is."""
    values = x[there]
    if values.min() < 0:
        return x
    positive = values[values > 0]
    if values.min() == 0:
        x = x + (positive.min() if len(positive) else 1.0)
    return np.asarray(np.log(x))


def _filled(x: Floats, there: NDArray[np.bool_]) -> Floats:
    """Centred, so that squares and products are of moderate size, and zero where there is none."""
    return np.where(there, x - x[there].mean(), 0.0)


def _standard(columns: Sequence[Floats], n: int) -> Floats:
    varied = [x for x in columns if x.std() > 1e-12 * max(1.0, float(np.abs(x).max()))]
    return np.stack([(x - x.mean()) / x.std() for x in varied], 1) if varied else np.zeros((n, 0))
