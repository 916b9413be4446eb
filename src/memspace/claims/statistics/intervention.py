"""What an intervention does: the difference between two arms of trainings that share everything else, pair by pair."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from memspace.arguments import check_fields
from memspace.auditing.results import Figure, Series
from memspace.claims.effects import Effect, StudentEffect
from memspace.claims.evidence import Evidence, averaged
from memspace.claims.sampling import Floats, Sampling, columns_of, complete, numbers
from memspace.claims.statistic import statistic
from memspace.errors import DataError, SettingsError
from memspace.value import Absent, Value

if TYPE_CHECKING:
    import polars as pl

__all__ = ["Intervention", "intervention"]


@dataclass(frozen=True)
class Intervention:
    """Arguments of the statistic ``intervention``.

    Args:
        outcome: column of what the intervention is to change.
        arm: column that says how a network was trained.
        treated: its value with the intervention.
        control: its value without.
        pair: columns that both networks of a pair share, the seed among them.
        matched: columns in which the arms are to agree on average, for example training loss and norm.
        within: the largest mean difference in each of these that counts as agreeing.
        relative: whether the difference is that of the logarithms of the outcome: a share of it, for small ones.

    Raises:
        SettingsError: the tolerances are not as many as the columns.
    """

    outcome: str
    arm: str
    treated: str
    control: str
    pair: tuple[str, ...]
    matched: tuple[str, ...] = ()
    within: tuple[float, ...] = ()
    relative: bool = False

    def __post_init__(self) -> None:
        check_fields(self)
        if len(self.matched) != len(self.within):
            raise SettingsError(
                f"{len(self.within)} tolerances of {len(self.matched)} matched columns",
                where="statistic.within",
                remedy="give one a column",
            )


@statistic(
    "intervention",
    arguments=Intervention,
    unit="unit of the outcome",
    estimator="mean over pairs of treated less control, Student",
    limits=("It is about this form and strength of the intervention; another may do otherwise.",),
)
def intervention(table: pl.DataFrame, arguments: Intervention, sampling: Sampling) -> Evidence:
    """Average the difference of an outcome between two arms, paired by seed.

    Args:
        table: a row a network.
        arguments: outcome, arms and what pairs share.
        sampling: families.

    Returns:
        The mean difference a family, with the mean difference of each matched column as a reading.

    Raises:
        DataError: a pair has two networks of one arm.
        SettingsError: the logarithm is asked for of an outcome that is not positive.
    """
    a = arguments
    rows = complete(table, [a.outcome, *a.matched], [a.arm, *a.pair])
    if a.relative and rows.height and float(numbers(rows, a.outcome).min()) <= 0:
        raise SettingsError(
            f"{a.outcome} is not positive everywhere", where="statistic.relative", remedy="register relative = false"
        )
    pairs = _paired(rows, a)
    effects: dict[str, Effect | Absent] = {}
    differences: dict[str, Floats] = {}
    readings: dict[str, tuple[Value | Absent, str]] = {}
    notes: list[str] = []
    for family, of in sampling.split(pairs):
        differences[family] = _difference(of, a, a.outcome, a.relative)
        effects[family] = _mean(differences[family])
        for name, limit in zip(a.matched, a.within, strict=True):
            shift = _mean(_difference(of, a, name, False))
            if isinstance(shift, StudentEffect):
                readings[f"{name}.difference.{family}"] = (shift.stated(), "1")
                if abs(shift.value) > limit:
                    notes.append(
                        f"In {family} the arms differ in {name} by {shift.value:.3g}, more than {limit:g}: the outcome "
                        "may follow from that."
                    )
    listed = {c: pairs[c].to_list() for c in ("family", *(n for n in a.pair if n != "family"))}
    for name in (a.outcome, *a.matched):
        listed |= {f"{name}, {arm}": pairs[_named(name, arm)].to_list() for arm in (a.treated, a.control)}
    return Evidence(
        {"": averaged(effects)},
        2 * pairs.height,
        table.height - 2 * pairs.height,
        readings,
        (_figure(differences, a),),
        {"pairs": listed},
        tuple(notes),
        f"in log {a.outcome}" if a.relative else f"in {a.outcome}",
    )


def _named(column: str, arm: str) -> str:
    return f"{column} ({arm})"


def _paired(rows: pl.DataFrame, a: Intervention) -> pl.DataFrame:
    """A row a pair that has both arms, each column of numbers once an arm."""
    import polars as pl

    columns_of(rows, ["family"])
    keys = list(dict.fromkeys(("family", *a.pair)))
    arms = []
    for arm in (a.treated, a.control):
        of = rows.filter(pl.col(a.arm) == arm)
        if of.select(keys).is_duplicated().any():
            raise DataError(
                f"a pair has two networks of the arm {arm!r}",
                where="statistic.pair",
                remedy="name all columns that tell the pairs apart",
            )
        arms.append(of.select(*keys, *(pl.col(n).alias(_named(n, arm)) for n in (a.outcome, *a.matched))))
    return arms[0].join(arms[1], on=keys, how="inner").sort(keys)


def _difference(pairs: pl.DataFrame, a: Intervention, column: str, relative: bool) -> Floats:
    """Treated less control, by pair."""
    first, second = (numbers(pairs, _named(column, arm)) for arm in (a.treated, a.control))
    return np.log(first) - np.log(second) if relative else first - second


def _mean(differences: Floats) -> StudentEffect | Absent:
    n = len(differences)
    if n < 2:
        return Absent(f"there are {n} pairs", "train at least two seeds of both arms")
    error = float(differences.std(ddof=1)) / math.sqrt(n)
    return StudentEffect(float(differences.mean()), error, n - 1, n)


def _figure(differences: dict[str, Floats], a: Intervention) -> Figure:
    series = tuple(
        Series(family, [float(k + 1) for k in range(len(d))], sorted(d.tolist()), "points")
        for family, d in differences.items()
        if len(d)
    )
    what = f"{'logarithm of ' if a.relative else ''}{a.outcome}: {a.treated} less {a.control}"
    return Figure("pairs", what, "A point a pair, in order.", "pair", "difference", series)
