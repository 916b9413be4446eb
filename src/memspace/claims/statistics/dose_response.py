"""Does a measure rise with what was put in? Pairs of networks that differ in a dose alone."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from memspace.arguments import check_fields
from memspace.auditing.results import Figure, Series
from memspace.claims.effects import PORTION, Effect, ShareEffect
from memspace.claims.evidence import Evidence, averaged
from memspace.claims.sampling import Codes, Floats, Sampling, codes_of, complete, numbers, ratio
from memspace.claims.statistic import statistic
from memspace.errors import SettingsError
from memspace.value import Absent, Value

if TYPE_CHECKING:
    import polars as pl

__all__ = ["DoseResponse", "dose_response"]


@dataclass(frozen=True)
class DoseResponse:
    """Arguments of the statistic ``dose response``.

    Args:
        dose: column of what was put in, for example the share of wrong labels.
        measures: columns that should rise with it, each judged by itself.
        same: columns that are equal in both networks of a pair, the seed among them.

    Raises:
        SettingsError: no measure is named.
    """

    dose: str
    measures: tuple[str, ...]
    same: tuple[str, ...]

    def __post_init__(self) -> None:
        check_fields(self)
        if not self.measures:
            raise SettingsError("no measures are named", where="statistic.measures", remedy="name columns")


@statistic(
    "dose response",
    arguments=DoseResponse,
    unit="1",
    estimator="share of pairs apart in the dose alone of which the network of the higher dose has more of the measure",
    limits=("A measure that rises with the dose may follow it for another reason: this is a positive control.",),
)
def dose_response(table: pl.DataFrame, arguments: DoseResponse, sampling: Sampling) -> Evidence:
    """Count the pairs in order.

    A pair without a difference in the measure counts half. The interval resamples units; where all pairs of all units
    are in order, or none is, resamples cannot differ, and units are counted by the exact binomial law instead.

    Args:
        table: a row a network.
        arguments: columns.
        sampling: families, unit of analysis, resamples.

    Returns:
        The share, a measure and family; a half where the dose does nothing.
    """
    a = arguments
    rows = complete(table, [a.dose, *a.measures], a.same)
    effects: dict[str, dict[str, Effect | Absent]] = {m: {} for m in a.measures}
    readings: dict[str, tuple[Value | Absent, str]] = {}
    for family, of in sampling.split(rows):
        units = sampling.units(of)
        for m in a.measures:
            ordered, pairs = _pairs(numbers(of, a.dose), numbers(of, m), codes_of(of, a.same))
            effects[m][family] = _share(ordered, pairs, units, sampling)
            total = Value(float(pairs.sum()), of.height)
            readings[f"pairs, {m}.{family}"] = (total, "1")
    return Evidence(
        {m: averaged(by) for m, by in effects.items()},
        rows.height,
        table.height - rows.height,
        readings,
        tuple(_figure(rows, m, a, sampling) for m in a.measures),
        {
            "networks": {
                c: rows[c].to_list() for c in dict.fromkeys(("family", *sampling.unit, *a.same, a.dose, *a.measures))
            }
        },
    )


def _pairs(dose: Floats, measure: Floats, groups: Codes) -> tuple[Floats, Floats]:
    """For each network: pairs in which its dose is the higher one, those in order and all."""
    higher = (groups[:, None] == groups[None, :]) & (dose[:, None] > dose[None, :])
    order = np.where(measure[:, None] > measure[None, :], 1.0, 0.5 * (measure[:, None] == measure[None, :]))
    return (higher * order).sum(1), higher.sum(1).astype(np.float64)


def _share(ordered: Floats, pairs: Floats, units: Codes, sampling: Sampling) -> Effect | Absent:
    if not pairs.sum():
        return Absent("no two networks differ in the dose alone", "train some that do")
    count = int(units.max()) + 1
    if ordered.sum() in (0.0, pairs.sum()):
        of_unit = np.bincount(units, pairs, minlength=count) > 0
        return ShareEffect(int(of_unit.sum()) if ordered.sum() else 0, int(of_unit.sum()))
    return sampling.bootstrap(units, lambda weights: ratio(weights @ ordered, weights @ pairs), PORTION)


def _figure(rows: pl.DataFrame, measure: str, a: DoseResponse, sampling: Sampling) -> Figure:
    """The measure over the dose, relative to its mean, a line a family."""
    series = []
    for family, of in sampling.split(rows):
        means: Mapping[float, float] = {
            float(d): float(numbers(of, measure)[numbers(of, a.dose) == d].mean())
            for d in sorted(set(numbers(of, a.dose).tolist()))
        }
        centre = float(np.mean(list(means.values()))) if means else 1.0
        series.append(Series(family, list(means), [v / centre if centre else v for v in means.values()]))
    caption = "Means over networks of equal dose, relative to the mean over doses."
    return Figure(f"dose {measure}", f"{measure} over {a.dose}", caption, a.dose, measure, tuple(series))
