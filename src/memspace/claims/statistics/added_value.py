"""What a measure adds to what is known without it: the error of predicting the gap of configurations left out."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

import numpy as np

from memspace.arguments import check_fields
from memspace.auditing.results import Figure, Series
from memspace.claims.effects import REDUCTION, Effect
from memspace.claims.evidence import Evidence, MeasureEffects, averaged
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
        logarithms: columns that enter by their logarithm, the outcome too where it is named.
        ridge: penalty on the coefficients of standardised columns.
        pooled: whether one regression is fitted to all families, where each has few units.

    Raises:
        SettingsError: no measure or no baseline is named.
    """

    measures: tuple[str, ...]
    outcome: str
    baseline: tuple[str, ...]
    within: tuple[str, ...] = ()
    logarithms: tuple[str, ...] = ()
    ridge: Annotated[float, POSITIVE] = 1.0
    pooled: bool = False

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
    units with their errors, those of both regressions together; it takes the regressions as given. Pooled, one
    regression is fitted to all families, the effect over all is that of all its errors, and each family's that of its
    own.

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
    readings: dict[str, tuple[Value | Absent, str]] = {}
    if a.pooled:
        measures = _of_all(rows, a, sampling, readings)
    else:
        effects: dict[str, dict[str, Effect | Absent]] = {m: {} for m in a.measures}
        for family, of in sampling.split(rows):
            for m, effect in _of_part(of, family, a, sampling, readings).items():
                effects[m][family] = effect
        measures = {m: averaged(by) for m, by in effects.items()}
    return Evidence(
        measures,
        rows.height,
        table.height - rows.height,
        readings,
        (_figure(readings, a, sampling),),
        {"networks": {c: rows[c].to_list() for c in dict.fromkeys(("family", *sampling.unit, a.outcome, *a.measures))}},
    )


def _of_part(
    rows: pl.DataFrame, label: str, a: AddedValue, sampling: Sampling, readings: dict[str, tuple[Value | Absent, str]]
) -> dict[str, Effect | Absent]:
    """The effect of each measure on rows that one regression is fitted to."""
    errors = _errors(rows, a, sampling)
    if isinstance(errors, Absent):
        return dict.fromkeys(a.measures, errors)
    units = sampling.units(rows)
    for name, of in errors.items():
        readings[f"error {name}.{label}"] = (Value(math.sqrt(float((of**2).mean())), len(units)), "1")
    without = errors["without"] ** 2
    return {m: _fall(errors[f"with {m}"] ** 2, without, units, sampling) for m in a.measures}


def _of_all(
    rows: pl.DataFrame, a: AddedValue, sampling: Sampling, readings: dict[str, tuple[Value | Absent, str]]
) -> dict[str, MeasureEffects]:
    """The effects of one regression on the rows of all families."""
    import polars as pl

    rows = rows.filter(pl.col("family").is_in(sampling.families))
    errors = _errors(rows, a, sampling)
    if isinstance(errors, Absent):
        return {m: MeasureEffects(errors, dict.fromkeys(sampling.families, errors)) for m in a.measures}
    parts = {"all": np.ones(rows.height, dtype=bool)} | {f: rows["family"].to_numpy() == f for f in sampling.families}
    effects: dict[str, dict[str, Effect | Absent]] = {m: {} for m in a.measures}
    for label, at in parts.items():
        units = sampling.units(rows.filter(pl.Series(at)))
        for name, of in errors.items():
            mean = float((of[at] ** 2).mean()) if at.any() else math.nan
            readings[f"error {name}.{label}"] = (Value(math.sqrt(mean), int(at.sum())), "1")
        for m in a.measures:
            effects[m][label] = _fall(errors[f"with {m}"][at] ** 2, errors["without"][at] ** 2, units, sampling)
    return {m: MeasureEffects(by["all"], {f: by[f] for f in sampling.families}) for m, by in effects.items()}


def _errors(rows: pl.DataFrame, a: AddedValue, sampling: Sampling) -> dict[str, Floats] | Absent:
    """Errors out of sample without a measure and with each."""
    units = sampling.units(rows)
    if len(np.unique(units)) < max(FEWEST, len(a.baseline) + 3):
        return Absent("there are fewer units of analysis than a regression needs", "train more configurations")
    with_measures = {f"with {m}": _left_out_errors(rows, (*a.baseline, m), units, a) for m in a.measures}
    return {"without": _left_out_errors(rows, a.baseline, units, a), **with_measures}


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
    y = np.log(y) if a.outcome in a.logarithms else y
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
