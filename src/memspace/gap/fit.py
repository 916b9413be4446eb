"""Calibrate the gap on a table of networks: lines through their measures, errors on groups left out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from memspace.errors import DataError
from memspace.gap.conformal import upper_quantile
from memspace.gap.domain import LOSS_FACTOR, Domain
from memspace.gap.line import Line, fit_line
from memspace.gap.model import LOG_RATIO, LOSS_GAP, GapModel, Tier, losses_of
from memspace.gap.predictors import TIERS, TRAIN_LOSS, on_scale
from memspace.limits import Limit
from memspace.version import VERSION

if TYPE_CHECKING:
    import polars as pl

__all__ = ["LEVEL", "fit_gap"]

Floats = NDArray[np.float64]
Codes = NDArray[np.int64]
LEVEL = 0.9
LEVELS = Limit(0.5, 1, below=True)
WHERE = "calibration of the gap"
FEWEST = 3  # groups without which no line can be judged on a group left out
ALMOST_ALL = 0.9  # of the networks must have a predictor
TARGETS = (LOSS_GAP, LOG_RATIO)


def fit_gap(
    table: pl.DataFrame,
    *,
    group: str = "block",
    level: float = LEVEL,
    law: str = "categorical",
    moment: float = 1.0,
    settings: Mapping[str, Any] | None = None,
    store: str = "",
) -> GapModel:
    """Calibrate the gap on a table of networks.

    The line tells the gap, or the logarithm of test loss over training loss, which is even where the gap has heavy
    tails: what gives the better intervals on groups left out (interval score of Gneiting & Raftery 2007).

    Args:
        table: one row a network: ``group``, ``train_loss``, ``test_loss``, ``outputs`` (how many), ``sequence``
            (whether an example has several positions), and a column a predictor, null where it is absent.
        group: column whose values are groups of networks; another group is to be predicted.
        level: of the intervals.
        law: name of the output law of all networks.
        moment: share of the training at which measures and ``train_loss`` were taken; ``test_loss`` is of the end.
        settings: of the measures.
        store: digest of where the networks lie.

    Returns:
        The calibration.

    Raises:
        DataError: a column is missing, or there are too few networks, groups or predictors.
        SettingsError: the level is out of its range.
    """
    level = LEVELS(level, "level")
    for column in (group, "train_loss", "test_loss", "outputs", "sequence"):
        if column not in table.columns:
            raise DataError(f"the table has no column {column!r}", where=WHERE, remedy="add it")
    losses = np.minimum(_numbers(table, "test_loss"), _numbers(table, "train_loss"))
    rows = table.filter(np.asarray(losses > 0))
    tiers: list[Tier] = []
    left_out: dict[str, str] = {}
    for name, predictors in TIERS.items():
        used = [p for p in predictors if _usable(rows, p, left_out)]
        if name == "training" and set(used) <= set(TIERS["network"]):
            continue  # nothing that the other tier lacks
        tiers.append(_tier(name, used, rows, group, level, law))
    names = tuple(sorted(map(str, rows[group].unique().to_list())))
    return GapModel(
        tuple(tiers), level, group, names, rows.height, left_out, moment, dict(settings or {}), store, VERSION
    )


def _usable(rows: pl.DataFrame, predictor: str, left_out: dict[str, str]) -> bool:
    """Whether almost all networks have a predictor, and it varies; else why not."""
    if predictor not in rows.columns:
        left_out[predictor] = "it was not measured"
        return False
    x = on_scale(_numbers(rows, predictor), predictor)
    there = np.isfinite(x)
    if there.mean() < ALMOST_ALL:
        left_out[predictor] = f"{int(there.sum())} of {len(x)} networks have it"
        return False
    if predictor == TRAIN_LOSS and np.ptp(x[there]) < np.log(LOSS_FACTOR):
        left_out[predictor] = "the networks were trained to one training loss"
        return False
    if np.ptp(x[there]) < 1e-9 * (1 + np.abs(x[there]).max()):
        left_out[predictor] = "it is the same for all networks"
        return False
    return True


def _tier(name: str, used: Sequence[str], table: pl.DataFrame, group: str, level: float, law: str) -> Tier:
    """One line and its errors, on the networks that have all predictors."""
    if not used:
        raise DataError("the networks lack all that the gap is told by", where=WHERE, remedy="measure them")
    x = np.stack([on_scale(_numbers(table, p), p) for p in used], 1)
    there = np.asarray(np.isfinite(x).all(1))
    rows, x = table.filter(there), x[there]
    labels = np.array([str(v) for v in rows[group].to_list()])
    names, code = np.unique(labels, return_inverse=True)
    if len(names) < FEWEST or len(x) < 2 * FEWEST:
        what = f"{len(x)} networks in {len(names)} groups have what the gap is told by"
        raise DataError(
            what, where=WHERE, remedy=f"measure networks of {FEWEST} groups or more, nine for 90% intervals"
        )
    train, test = _numbers(rows, "train_loss"), _numbers(rows, "test_loss")
    made = [_judged(x, code.ravel().astype(np.int64), train, test, target, level) for target in TARGETS]
    _, target, whole, folds, scores = min(made, key=lambda one: one[0])
    farthest = max(float(f.distances(x[code.ravel() == k]).max()) for k, f in enumerate(folds))
    counts = _numbers(rows, "outputs")
    domain = Domain(
        tuple(map(float, x.min(0))),
        tuple(map(float, x.max(0))),
        tuple(sorted({float(f"{v:.3g}") for v in train})),
        (int(counts.min()), int(counts.max())),
        tuple(sorted(set(map(bool, rows["sequence"].to_list())))),
        law,
        farthest,
    )
    return Tier(name, tuple(used), target, whole, folds, scores, domain)


Judged = tuple[float, str, Line, tuple[Line, ...], tuple[tuple[float, ...], ...]]


def _judged(x: Floats, group: Codes, train: Floats, test: Floats, target: str, level: float) -> Judged:
    """The lines of a target, and the mean interval score of its predictions of groups left out, nats."""
    y = np.log(test / train) if target == LOG_RATIO else test - train
    count = int(group.max()) + 1
    folds = tuple(fit_line(x[group != k], y[group != k], group[group != k]) for k in range(count))
    scores = []
    for k, line in enumerate(folds):
        inside = group == k
        scores.append(np.abs(y[inside] - line.values(x[inside])) / line.errors(x[inside]))
    level = min(level, count / (count + 1))  # the most that these groups can tell
    reach, alpha, total = upper_quantile(scores, level), 1 - level, 0.0
    for k, line in enumerate(folds):
        inside = np.flatnonzero(group == k)
        middle, half = line.values(x[inside]), reach * line.errors(x[inside])
        low = np.array([losses_of(v, target, t) for v, t in zip(middle - half, train[inside], strict=True)])
        high = np.array([losses_of(v, target, t) for v, t in zip(middle + half, train[inside], strict=True)])
        missed = np.maximum(low - test[inside], 0) + np.maximum(test[inside] - high, 0)
        total += float((high - low + 2 / alpha * missed).mean()) / count
    return total, target, fit_line(x, y, group), folds, tuple(tuple(map(float, s)) for s in scores)


def _numbers(table: pl.DataFrame, column: str) -> Floats:
    """A column as float64, NaN where there is none."""
    kind: Any = float
    return np.asarray(table[column].cast(kind).fill_null(np.nan).to_numpy(), np.float64)
