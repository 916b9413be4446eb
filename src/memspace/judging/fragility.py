"""How far a measure and its rank move when the recipe hardly does: gain on the logits, learning rate, width, seed.

A measure that turns networks over under a change that leaves what they do as it was says little about them. The
movement is counted in spreads of the measure over the networks that were changed: half the distance from the 16th to
the 84th percentile, on the scale of :func:`memspace.judging.features.evened`. The change of rank is the share of the
other networks that the changed one passes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import quantile_test

from memspace.errors import DataError, SettingsError
from memspace.frames import polars
from memspace.judging.features import evened

if TYPE_CHECKING:
    import polars as pl

__all__ = ["COLUMNS", "fragility"]

Floats = NDArray[np.float64]
COLUMNS = ("key", "base", "change", "measure", "before", "after")
FEWEST = 8  # networks that were changed
WHERE = "memspace.judging.fragility"


def fragility(moves: pl.DataFrame) -> pl.DataFrame:
    """Compute how far measures move under small changes of the recipe.

    Args:
        moves: one row a changed network and measure: ``key`` of the changed network, ``base`` of the one it was made
            from, the name of the ``change``, the ``measure``, its value ``before`` and ``after``; null or NaN where a
            measure is absent.

    Returns:
        A row a measure and change, and one with ``change`` null for all changes together: number of networks ``n``;
        ``drift``, the median movement with its sign; ``moved``, ``moved_90``, ``moved_most``, median, 90th percentile
        and maximum of its absolute value in spreads, with the median's 95% interval ``moved_low``, ``moved_high``;
        ``rank``, ``rank_90``, ``rank_most`` likewise of the change of rank, from 0 to 1; ``reason``, where they are
        null.

    Raises:
        DataError: a column is missing, or a base has two values of a measure.
        SettingsError: it is no polars frame.
    """
    frames = polars()
    if not isinstance(moves, frames.DataFrame):
        raise SettingsError(f"the moves are a {type(moves).__name__}", where=WHERE, remedy="give a polars DataFrame")
    missing = [c for c in COLUMNS if c not in moves.columns]
    if missing:
        raise DataError(f"the table has no column {missing[0]!r}", where=WHERE, remedy=f"give {', '.join(COLUMNS)}")
    numbers = [frames.col(c).cast(frames.Float64) for c in ("before", "after")]
    read = moves.with_columns(numbers).fill_nan(None)
    records: list[dict[str, Any]] = []
    for (measure,), part in read.group_by(["measure"], maintain_order=True):
        records += _measure(str(measure), part)
    schema = {"measure": frames.String, "change": frames.String, "n": frames.Int64}
    schema |= dict.fromkeys(NUMBERS, frames.Float64) | {"reason": frames.String}
    made: pl.DataFrame = frames.DataFrame(records, schema=schema)
    return made


NUMBERS = ("drift", "moved", "moved_low", "moved_high", "moved_90", "moved_most", "rank", "rank_90", "rank_most")


def _measure(measure: str, part: pl.DataFrame) -> list[dict[str, Any]]:
    """The rows of one measure."""
    bases = part.select("base", "before").unique(maintain_order=True).drop_nulls()
    if bases["base"].n_unique() < bases.height:
        raise DataError(f"a network has two values of {measure} before", where=WHERE, remedy="give one")
    there = part.drop_nulls(["before", "after"])
    both = np.concatenate([bases["before"].to_numpy(), there["before"].to_numpy(), there["after"].to_numpy()])
    names = [*part["change"].unique(maintain_order=True).to_list(), None]
    reason = _reason(bases["before"].to_numpy(), both)
    if reason:
        return [{"measure": measure, "change": name, "n": there.height, "reason": reason} for name in names]
    scaled = evened(both)
    base, before, after = np.split(scaled, [bases.height, bases.height + there.height])
    low, high = np.quantile(base, (0.16, 0.84))
    spread = (high - low) / 2
    if spread == 0:
        reason = "most networks have the same value"
        return [{"measure": measure, "change": name, "n": there.height, "reason": reason} for name in names]
    moved, passed = (after - before) / spread, _rank(after, before, base) - _rank(before, before, base)
    change = np.array(there["change"].to_list(), object)
    return [
        {"measure": measure, "change": name} | _summary(moved[at], np.abs(passed)[at])
        for name in names
        for at in [np.ones(len(change), bool) if name is None else change == name]
    ]


def _reason(base: Floats, both: Floats) -> str:
    if len(base) < FEWEST:
        return f"{len(base)} networks were changed, fewer than {FEWEST}"
    return "" if np.isfinite(both).all() else "a value is infinite"


def _rank(values: Floats, before: Floats, base: Floats) -> Floats:
    """Share of the base networks but the changed one itself that lie below, ties half."""
    order = np.sort(base)
    below = np.searchsorted(order, values, "left") + np.searchsorted(order, values, "right")
    itself = (before < values).astype(float) * 2 + (before == values)
    return np.asarray((below - itself) / (2 * (len(base) - 1)))


def _summary(moved: Floats, passed: Floats) -> dict[str, Any]:
    if not len(moved):
        return {"n": 0, "reason": "no changed network has the measure"}
    size = np.abs(moved)
    ends: Any = quantile_test(size, p=0.5).confidence_interval()
    low, high = (float(e) if np.isfinite(e) else None for e in ends)
    at = (0.5, 0.9, 1.0)
    numbers = (float(np.median(moved)), *np.quantile(size, at), *np.quantile(passed, at))
    drift, middle, ninety, most, rank, rank_90, rank_most = map(float, numbers)
    return {
        "n": len(moved),
        "drift": drift,
        "moved": middle,
        "moved_low": low,
        "moved_high": high,
        "moved_90": ninety,
        "moved_most": most,
        "rank": rank,
        "rank_90": rank_90,
        "rank_most": rank_most,
        "reason": None,
    }
