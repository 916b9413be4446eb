"""Prediction of the gap for a group of networks that was left out: by hyper-parameters, with and without measures.

The baseline that a measure must beat is what anyone knows before training: the hyper-parameters alone
(:mod:`memspace.judging.features`). A group (a family, a data set, a width) is left out in turn, the rest is fitted and
the group predicted. Least squares where every training part has twenty networks a column, else ridge regression
whose penalty is chosen inside the training part by leaving groups out of it in turn.

Intervals hold the predictions and resample networks: whole groups where there are eight or more, since what is
predicted by one fit goes wrong together, else configurations.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray
from sklearn.linear_model import Ridge
from sklearn.model_selection import GroupKFold

from memspace.errors import SettingsError
from memspace.judging.design import Design
from memspace.judging.features import knob_features, measure_features
from memspace.judging.kendall import block_sums, pair_signs, quadratic
from memspace.judging.resampling import DRAWS, Resamples
from memspace.judging.tables import Rows, networks, rows_of, settings
from memspace.value import Absent, Value

if TYPE_CHECKING:
    import polars as pl

__all__ = ["Prediction", "predict_out_of_sample"]

Floats = NDArray[np.float64]
Codes = NDArray[np.int64]
Model = Literal["least squares", "ridge"]
PENALTIES = np.logspace(-4, 3, 15)  # times the number of networks
PER_COLUMN = 20  # networks a column from which least squares is used
MANY = 8  # groups from which they are resampled


@dataclass(frozen=True)
class Prediction:
    """Errors of the predicted gap on networks of groups that were left out.

    Args:
        rmse: root of the mean squared error, in the gap's unit.
        mae: mean absolute error, in the gap's unit.
        tau: Kendall's τ of predicted and measured gap.
        rmse_change: rmse less that of the hyper-parameters alone on the same networks; negative is better.
        mae_change: likewise.
        tau_change: likewise; positive is better.
        predicted: (n,) predicted gap of every network that has the measures.
        rows: (n,) their rows in the table.
        model: how it was fitted.
    """

    rmse: Value
    mae: Value
    tau: Value
    rmse_change: Value | Absent
    mae_change: Value | Absent
    tau_change: Value | Absent
    predicted: Floats
    rows: Codes
    model: str


def predict_out_of_sample(
    table: pl.DataFrame,
    measures: str | Sequence[str],
    design: Design,
    *,
    knobs: bool = True,
    model: Model | None = None,
    draws: int = DRAWS,
    seed: int = 0,
) -> Prediction | Absent:
    """Predict the gap of every group of networks from all others.

    Args:
        table: one row a network (:mod:`memspace.judging`).
        measures: column or columns that the prediction may use; an empty list for the hyper-parameters alone.
        design: of the table; the values of ``design.left_out`` are left out in turn.
        knobs: whether the prediction may use the hyper-parameters.
        model: ``"least squares"`` or ``"ridge"``; by the number of columns where None.
        draws: of the bootstrap.
        seed: of the draws.

    Returns:
        Errors with 95% intervals, and how much they change by the measures; absent where there are fewer than two
        groups.

    Raises:
        SettingsError: there is nothing to predict from.
    """
    names = (measures,) if isinstance(measures, str) else tuple(measures)
    if not names and not knobs:
        raise SettingsError("there is nothing to predict from", where="predict_out_of_sample", remedy="name a measure")
    rows = _rows(table, names, design)
    if isinstance(rows, Absent):
        return rows
    group = settings(rows.frame, (design.group,)).ravel()
    if len(np.unique(group)) < 2:
        return Absent(f"all networks have the same {design.group}", "leave out a column that takes several values")
    base, extra = knob_features(rows.frame, design.knobs), measure_features(rows.frame, names)
    x = np.concatenate([base, extra], 1) if knobs else extra
    predicted, fitted_by = _left_out(x, rows, group, model)
    resamples, unit, how = _units(rows, group, draws, seed)
    errors = _errors(predicted, rows.gap, resamples, unit)
    values = [resamples.value(e, rows.n, how=how) for e in errors]
    reason = Absent("it is compared with itself", "") if knobs else Absent("", "")
    changes: list[Value | Absent] = [reason] * 3
    if names and base.shape[1]:
        alone, _ = _left_out(base, rows, group, model)
        for k, before in enumerate(_errors(alone, rows.gap, resamples, unit)):
            changes[k] = resamples.value(errors[k] - before, rows.n, how=how)
    order = rows.frame["_row"].to_numpy().astype(np.int64)
    return Prediction(values[0], values[1], values[2], changes[0], changes[1], changes[2], predicted, order, fitted_by)


def _rows(table: pl.DataFrame, names: Sequence[str], design: Design) -> Rows | Absent:
    """The networks that have all measures, finite."""
    read = networks(table, design, names).with_row_index("_row")
    for name in names:
        read = read.filter(read[name].is_finite().fill_null(False))
    return rows_of(read, names[0] if names else None, design, names[1:])


def _left_out(x: Floats, rows: Rows, group: Codes, model: Model | None) -> tuple[Floats, str]:
    """Predictions of every group from the others, and how."""
    predicted = np.empty(rows.n)
    smallest = min(int((group != g).sum()) for g in np.unique(group))
    ridge = model == "ridge" or (model is None and smallest < PER_COLUMN * (x.shape[1] + 1))
    for g in np.unique(group):
        inside = group != g
        fit = _ridge if ridge else _least_squares
        predicted[~inside] = fit(x[inside], rows.gap[inside], x[~inside], group[inside], rows.configuration[inside])
    return predicted, "ridge" if ridge else "least squares"


def _least_squares(x: Floats, y: Floats, new: Floats, _group: Codes, _unit: Codes) -> Floats:
    one = np.ones((len(x), 1))
    weights = np.linalg.lstsq(np.concatenate([one, x], 1), y, rcond=None)[0]
    return np.asarray(weights[0] + new @ weights[1:])


def _ridge(x: Floats, y: Floats, new: Floats, group: Codes, unit: Codes) -> Floats:
    """Ridge regression; the penalty is the one with the smallest error on groups left out of the training part."""
    inner = group if len(np.unique(group)) > 2 else unit
    folds = GroupKFold(min(5, len(np.unique(inner))))
    error = np.zeros(len(PENALTIES))
    for inside, outside in folds.split(x, y, inner):
        guess = _path(x[inside], y[inside], x[outside], PENALTIES)
        error += ((guess - y[outside, None]) ** 2).sum(0)
    best = PENALTIES[[int(np.argmin(error))]]
    return _path(x, y, new, best)[:, 0]


def _path(x: Floats, y: Floats, new: Floats, penalties: Floats) -> Floats:
    """Predictions at several penalties, (networks, penalties), by one decomposition."""
    fitted = Ridge(alpha=penalties * len(x), solver="svd").fit(x, np.repeat(y[:, None], len(penalties), 1))
    return np.asarray(fitted.predict(new)).reshape(len(new), len(penalties))


def _units(rows: Rows, group: Codes, draws: int, seed: int) -> tuple[Resamples, Codes, str]:
    """What is resampled, and how that is said."""
    count = len(np.unique(group))
    if count >= MANY:
        return Resamples.of(count, draws, seed), group, f"{count} groups left out in turn, resampled"
    made = Resamples.of(rows.configurations, draws, seed)
    return made, rows.configuration, f"{count} groups left out in turn; configurations resampled"


def _errors(predicted: Floats, gap: Floats, resamples: Resamples, unit: Codes) -> list[Floats]:
    """RMSE, MAE and τ for every resample."""
    counts = resamples.counts.astype(np.float64)
    size = counts @ np.bincount(unit).astype(np.float64)
    off = predicted - gap
    with np.errstate(invalid="ignore", divide="ignore"):
        rmse = np.sqrt((counts @ np.bincount(unit, off**2)) / size)
        mae = (counts @ np.bincount(unit, np.abs(off))) / size
    order = np.argsort(unit, kind="stable")
    first, second = pair_signs(predicted[order]), pair_signs(gap[order])
    sums = [quadratic(resamples.counts, block_sums(m, unit[order])) for m in (first * second, abs(first), abs(second))]
    with np.errstate(invalid="ignore", divide="ignore"):
        tau = np.where(sums[1] * sums[2] > 0, sums[0] / np.sqrt(sums[1] * sums[2]), np.nan)
    return [rmse, mae, tau]
