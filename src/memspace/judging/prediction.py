"""Prediction of the gap for a group of networks that was left out: by hyper-parameters, with and without measures.

The baseline that a measure must beat is what anyone knows before training: the hyper-parameters alone
(:mod:`memspace.judging.features`). A group (a family, a data set, a width) is left out in turn, the rest is fitted and
the group predicted. Least squares where every training part has twenty networks a column, else ridge regression
whose penalty is chosen inside the training part by leaving groups out of it in turn. A predicted gap is a measure
itself: as a column of the table, ``Prediction.column``, it can be judged like any other.

Intervals resample configurations and repeat every fit (:mod:`memspace.judging.regression`), at the penalties chosen
once. They hold for the groups of the table: how a measure fares on further groups only further groups can tell. A
measure of pure noise improved the prediction of four or ten groups by such an interval in 0 to 6% of trials, where
2.5% are due.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray

from memspace.errors import SettingsError
from memspace.frames import polars
from memspace.judging.design import JudgingDesign
from memspace.judging.features import knob_features, measure_features
from memspace.judging.kendall import pair_signs, tau_b
from memspace.judging.regression import penalties, predicted, repeated
from memspace.judging.resampling import DRAWS, Resamples
from memspace.judging.tables import NetworkRows, networks, rows_of, settings
from memspace.value import Absent, Value

if TYPE_CHECKING:
    import polars as pl

__all__ = ["Change", "Prediction", "compare_predictions", "predict_out_of_sample", "with_and_alone"]

Floats = NDArray[np.float64]
Codes = NDArray[np.int64]
Model = Literal["least squares", "ridge"]
PER_COLUMN = 20  # networks a column from which least squares is used
TAU_DRAWS = 200  # resamples in which predictions are ranked, which costs more than the fits


@dataclass(frozen=True)
class Change:
    """How the errors of one prediction differ from those of another on the same networks.

    Args:
        rmse: in the gap's unit; negative is better.
        mae: likewise.
        tau: positive is better.
    """

    rmse: Value
    mae: Value
    tau: Value


@dataclass(frozen=True)
class Prediction:
    """Errors of the predicted gap on networks of groups that were left out.

    Args:
        rmse: root of the mean squared error, in the gap's unit.
        mae: mean absolute error, in the gap's unit.
        tau: Kendall's τ of predicted and measured gap.
        change: by the measures, from the hyper-parameters alone on the same networks.
        column: predicted gap of every row of the table, null where it lacks a measure.
        model: how it was fitted.
    """

    rmse: Value
    mae: Value
    tau: Value
    change: Change | Absent
    column: pl.Series
    model: str


@dataclass(frozen=True)
class Fitted:
    """A fit to all groups but the one that is predicted, each left out in turn.

    Args:
        predicted: (resamples, n) predictions, the first row of the table itself.
        errors: root mean squared error, mean absolute error and τ, of every resample.
        model: how it was fitted.
    """

    predicted: Floats
    errors: tuple[Floats, Floats, Floats]
    model: str


def predict_out_of_sample(
    table: pl.DataFrame,
    measures: str | Sequence[str],
    design: JudgingDesign,
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
    names = _names(measures)
    if not names and not knobs:
        raise SettingsError("there is nothing to predict from", where="predict_out_of_sample", remedy="name a measure")
    made = _predictions(table, names, design, (knobs,), model, draws, seed)
    return made if isinstance(made, Absent) else made[0]


def with_and_alone(
    table: pl.DataFrame,
    measures: str | Sequence[str],
    design: JudgingDesign,
    *,
    draws: int = DRAWS,
    seed: int = 0,
    alone: dict[bytes, Fitted] | None = None,
) -> tuple[Prediction, Prediction] | Absent:
    """Predict the gap with hyper-parameters and measures, and with the measures alone.

    Args:
        table: one row a network.
        measures: column or columns, one at least.
        design: of the table.
        draws: of the bootstrap.
        seed: of the draws.
        alone: fits of the hyper-parameters alone, by the networks they are of: used, and added to. For calls that
            differ in their measures only.

    Returns:
        Both as :func:`predict_out_of_sample` gives them, which takes longer for each.
    """
    made = _predictions(table, _names(measures), design, (True, False), None, draws, seed, alone)
    return made if isinstance(made, Absent) else (made[0], made[1])


def _predictions(
    table: pl.DataFrame,
    names: Sequence[str],
    design: JudgingDesign,
    knobs: Sequence[bool],
    model: Model | None,
    draws: int,
    seed: int,
    fits: dict[bytes, Fitted] | None = None,
) -> list[Prediction] | Absent:
    """A prediction with or without hyper-parameters for each of ``knobs``, all compared with hyper-parameters alone."""
    rows = _rows(table, names, design)
    if isinstance(rows, Absent):
        return rows
    group, resamples = settings(rows.frame, (design.group,)).ravel(), Resamples.of(rows.configurations, draws, seed)
    base, extra = knob_features(rows.frame, design.knobs), measure_features(rows.frame, names)
    alone = _alone(base, rows, group, model, resamples, {} if fits is None else fits) if names else None
    how, short = f"{len(np.unique(group))} groups left out in turn", _short(resamples)
    made = []
    for use in knobs:
        fitted = _fitted(np.concatenate([base, extra], 1) if use else extra, rows, group, model, resamples)
        rmse, mae = (resamples.value(e, rows.n, how=how) for e in fitted.errors[:2])
        tau = short.value(fitted.errors[2], rows.n, pairs=rows.configurations // 2, how=how)
        change: Change | Absent = Absent("there is no measure to compare with the hyper-parameters alone")
        if alone is not None:
            change = _change(fitted, alone, rows, resamples, how)
        made.append(Prediction(rmse, mae, tau, change, _column(table, rows, fitted.predicted[0]), fitted.model))
    return made


def compare_predictions(
    table: pl.DataFrame,
    first: str | Sequence[str],
    second: str | Sequence[str],
    design: JudgingDesign,
    *,
    knobs: bool = True,
    model: Model | None = None,
    draws: int = DRAWS,
    seed: int = 0,
) -> Change | Absent:
    """Compare the predictions by two sets of measures on the networks that have both.

    Args:
        table: one row a network.
        first: column or columns of one prediction.
        second: column or columns of the one that is subtracted.
        design: of the table.
        knobs: whether both may use the hyper-parameters.
        model: as for :func:`predict_out_of_sample`.
        draws: of the bootstrap, the same for both.
        seed: of the draws.

    Returns:
        Errors of the first less those of the second, with 95% intervals.

    Raises:
        SettingsError: there is nothing to predict from.
    """
    one, other = _names(first), _names(second)
    if not (one and other) and not knobs:
        raise SettingsError("there is nothing to predict from", where="compare_predictions", remedy="name a measure")
    rows = _rows(table, tuple(dict.fromkeys((*one, *other))), design)
    if isinstance(rows, Absent):
        return rows
    group, resamples = settings(rows.frame, (design.group,)).ravel(), Resamples.of(rows.configurations, draws, seed)
    base = knob_features(rows.frame, design.knobs) if knobs else np.zeros((rows.n, 0))
    made = [
        _fitted(np.concatenate([base, measure_features(rows.frame, n)], 1), rows, group, model, resamples)
        for n in (one, other)
    ]
    return _change(made[0], made[1], rows, resamples, f"{len(np.unique(group))} groups left out in turn")


def _names(measures: str | Sequence[str]) -> tuple[str, ...]:
    return (measures,) if isinstance(measures, str) else tuple(measures)


def _rows(table: pl.DataFrame, names: Sequence[str], design: JudgingDesign) -> NetworkRows | Absent:
    """The networks that have all measures, finite, of two groups at least."""
    read = networks(table, design, names).with_row_index("_row")
    for name in names:
        read = read.filter(read[name].is_finite().fill_null(False))
    rows = rows_of(read, names[0] if names else None, design, names[1:])
    if not isinstance(rows, Absent) and rows.frame[design.group].n_unique() < 2:
        return Absent(f"all networks have the same {design.group}", "leave out a column that takes several values")
    return rows


def _fitted(x: Floats, rows: NetworkRows, group: Codes, model: Model | None, resamples: Resamples) -> Fitted:
    """Predictions of every group from the others: of the table, and of every resample."""
    smallest = rows.n - int(np.bincount(group).max())
    ridge = model == "ridge" or (model is None and smallest < PER_COLUMN * (x.shape[1] + 1))
    penalty = penalties(x, rows.gap, group, rows.configuration) if ridge else None
    counts = resamples.counts[:, rows.configuration].astype(np.float64)
    again = repeated(x, rows.gap, group, penalty, counts)
    again[0] = predicted(x, rows.gap, group, penalty)
    off, size = again - rows.gap, counts.sum(1)
    rmse, mae = np.sqrt((counts * off**2).sum(1) / size), (counts * np.abs(off)).sum(1) / size
    short = _short(resamples).counts
    tau = _taus(again[: len(short)], rows, short)
    return Fitted(again, (rmse, mae, tau), "ridge" if ridge else "least squares")


def _alone(
    base: Floats,
    rows: NetworkRows,
    group: Codes,
    model: Model | None,
    resamples: Resamples,
    fits: dict[bytes, Fitted],
) -> Fitted:
    """The fit of the hyper-parameters alone, made once for the same networks."""
    key = rows.frame["_row"].to_numpy().tobytes()
    if key not in fits:
        fits[key] = _fitted(base, rows, group, model, resamples)
    return fits[key]


def _short(resamples: Resamples) -> Resamples:
    """The resamples in which predictions are ranked."""
    return Resamples(resamples.counts[: 1 + resamples.blocks + TAU_DRAWS], resamples.blocks)


def _taus(guesses: Floats, rows: NetworkRows, counts: NDArray[np.float32]) -> Floats:
    """τ-b of the predictions of every resample with the gap, every network as often as it was drawn."""
    gap = pair_signs(rows.gap)
    taus = [tau_b(c[None], pair_signs(g), gap, rows.configuration)[0] for g, c in zip(guesses, counts, strict=True)]
    return np.array(taus)


def _change(one: Fitted, other: Fitted, rows: NetworkRows, resamples: Resamples, how: str) -> Change:
    numbers = [a - b for a, b in zip(one.errors, other.errors, strict=True)]
    rmse, mae = (resamples.value(d, rows.n, how=how) for d in numbers[:2])
    return Change(rmse, mae, _short(resamples).value(numbers[2], rows.n, how=how))


def _column(table: pl.DataFrame, rows: NetworkRows, guess: Floats) -> pl.Series:
    """The predictions in the order of the table."""
    column = np.full(table.height, np.nan)
    column[rows.frame["_row"].to_numpy().astype(np.int64)] = guess
    made: pl.Series = polars().Series("predicted", column).fill_nan(None)
    return made
