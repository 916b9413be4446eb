"""What a measure adds to what is known without it: the error of predicting the gap of configurations left out."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

import numpy as np

from memspace.arguments import check_fields
from memspace.auditing.results import Figure, Series
from memspace.claims.effects import REDUCTION, Effect
from memspace.claims.evidence import Evidence, averaged
from memspace.claims.sampling import FEWEST, Codes, Floats, Sampling, codes_of, complete, numbers, ratio
from memspace.claims.statistic import statistic
from memspace.errors import SettingsError
from memspace.limits import POSITIVE
from memspace.value import Absent, Value

if TYPE_CHECKING:
    import polars as pl

__all__ = ["AddedValue", "added_value"]


@dataclass(frozen=True)
class AddedValue:
    """Arguments of the statistic ``added value``.

    Args:
        measures: columns, each judged by itself.
        outcome: column to predict, as a rule the final gap.
        baseline: columns known without the measure: the loss curve so far, a rival measure.
        within: columns of groups with a mean of their own, for example the data set.
        logarithms: columns that enter by their logarithm.
        ridge: penalty on the coefficients of standardised columns.

    Raises:
        SettingsError: no measure or no baseline is named.
    """

    measures: tuple[str, ...]
    outcome: str
    baseline: tuple[str, ...]
    within: tuple[str, ...] = ()
    logarithms: tuple[str, ...] = ()
    ridge: Annotated[float, POSITIVE] = 1.0

    def __post_init__(self) -> None:
        check_fields(self)
        for name in ("measures", "baseline"):
            if not getattr(self, name):
                raise SettingsError(f"no {name} are named", where=f"statistic.{name}", remedy="name columns")


@statistic(
    "added value",
    arguments=AddedValue,
    unit="1",
    estimator="1 − MSE with the measure/MSE without, ridge regression, each unit of analysis left out in turn",
    limits=("A measure that adds nothing to a linear prediction may add to another one.",),
)
def added_value(table: pl.DataFrame, arguments: AddedValue, sampling: Sampling) -> Evidence:
    """Compare squared errors of predictions out of sample, with a measure and without.

    Every unit of analysis is predicted by a regression fitted to the other units of its family, in closed form:
    e_g = (I − H_gg)⁻¹ r_g of the rows g of the unit, r the residuals and H the hat matrix. The interval resamples
    units with their errors; it takes the regressions as given.

    Args:
        table: a row a network.
        arguments: columns.
        sampling: families, unit of analysis, resamples.

    Returns:
        The share by which the mean squared error falls, a measure and family.

    Raises:
        SettingsError: a logarithm is asked for of a column that is not positive.
    """
    a = arguments
    rows = complete(table, [*a.measures, a.outcome, *a.baseline], a.within)
    for name in a.logarithms:
        if name in rows.columns and rows.height and float(numbers(rows, name).min()) <= 0:
            raise SettingsError(
                f"{name} is not positive everywhere", where="statistic.logarithms", remedy="leave its logarithm out"
            )
    effects: dict[str, dict[str, Effect | Absent]] = {m: {} for m in a.measures}
    readings: dict[str, tuple[Value | Absent, str]] = {}
    for family, of in sampling.split(rows):
        units = sampling.units(of)
        if len(np.unique(units)) < max(FEWEST, len(a.baseline) + 3):
            few = Absent("there are fewer units of analysis than a regression needs", "train more configurations")
            effects = {m: by | {family: few} for m, by in effects.items()}
            continue
        without = _left_out_errors(of, a.baseline, units, a)
        readings[f"error without.{family}"] = (Value(math.sqrt(float((without**2).mean())), len(units)), "1")
        for m in a.measures:
            errors = _left_out_errors(of, (*a.baseline, m), units, a)
            readings[f"error with {m}.{family}"] = (Value(math.sqrt(float((errors**2).mean())), len(units)), "1")
            effects[m][family] = _fall(errors**2, without**2, units, sampling)
    measures = {m: averaged(by) for m, by in effects.items()}
    return Evidence(
        measures,
        rows.height,
        table.height - rows.height,
        readings,
        (_figure(readings, a, sampling),),
        {"networks": {c: rows[c].to_list() for c in dict.fromkeys(("family", *sampling.unit, a.outcome, *a.measures))}},
    )


def _design(rows: pl.DataFrame, names: tuple[str, ...], a: AddedValue) -> tuple[Floats, Floats]:
    """Columns of groups and standardised features, and which of them are penalised."""
    groups = codes_of(rows, a.within)
    means = np.eye(int(groups.max()) + 1)[groups]
    features = []
    for name in names:
        x = numbers(rows, name)
        x = np.log(x) if name in a.logarithms else x
        spread = float(x.std())
        features.append((x - x.mean()) / spread if spread > 0 else np.zeros_like(x))
    penalty = np.concatenate([np.full(means.shape[1], 1e-9), np.full(len(features), a.ridge)])
    return np.column_stack([means, *features]), penalty


def _left_out_errors(rows: pl.DataFrame, names: tuple[str, ...], units: Codes, a: AddedValue) -> Floats:
    """Errors on each unit's rows of the regression fitted without them."""
    design, penalty = _design(rows, names, a)
    y = numbers(rows, a.outcome)
    hat = design @ np.linalg.solve(design.T @ design + np.diag(penalty), design.T)
    residual = y - hat @ y
    errors = np.empty_like(y)
    for unit in np.unique(units):
        at = np.flatnonzero(units == unit)
        errors[at] = np.linalg.solve(np.eye(len(at)) - hat[np.ix_(at, at)], residual[at])
    return errors


def _fall(with_measure: Floats, without: Floats, units: Codes, sampling: Sampling) -> Effect | Absent:
    def fall(weights: Floats) -> Floats:
        below = weights @ without
        return 1 - ratio(weights @ with_measure, below)

    return sampling.bootstrap(units, fall, REDUCTION)


def _figure(readings: dict[str, tuple[Value | Absent, str]], a: AddedValue, sampling: Sampling) -> Figure:
    series = []
    for label in ("without", *(f"with {m}" for m in a.measures)):
        errors = [readings.get(f"error {label}.{family}") for family in sampling.families]
        known = [math.nan if e is None or isinstance(e[0], Absent) else e[0].value for e in errors]
        series.append(Series(label, list(sampling.families), known, "bar"))
    caption = f"Root mean squared error of predicting {a.outcome} of units left out."
    return Figure("errors", "Error out of sample", caption, "family", "error", tuple(series))
