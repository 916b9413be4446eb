"""Measures under changes of weights that leave the network's function or its decisions alone: how far do they move?"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any

from memspace.arguments import check_fields
from memspace.auditing.results import Figure, Series
from memspace.claims.effects import Effect, ShareEffect
from memspace.claims.evidence import Evidence, averaged
from memspace.claims.sampling import Sampling, columns_of
from memspace.claims.statistic import statistic
from memspace.errors import DataError, SettingsError
from memspace.limits import POSITIVE
from memspace.value import Absent, Value

if TYPE_CHECKING:
    import polars as pl

__all__ = ["Invariance", "invariance"]


@dataclass(frozen=True)
class Invariance:
    """Arguments of the statistic ``invariance``, whose table has a row a network and transformation.

    Args:
        measures: columns, each judged by itself.
        network: columns that name a network.
        transformation: column with the name of the transformation.
        exact: names of those that must not move a measure: rescaling, permutation, dead units.
        gains: names of those that multiply the logits.
        tolerance: the largest relative movement that counts as none.
        none: the name under which a network as it is stands.

    Raises:
        SettingsError: no measure or transformation is named.
    """

    measures: tuple[str, ...]
    network: tuple[str, ...]
    transformation: str
    exact: tuple[str, ...]
    gains: tuple[str, ...] = ()
    tolerance: Annotated[float, POSITIVE] = 1e-4
    none: str = "none"

    def __post_init__(self) -> None:
        check_fields(self)
        for name in ("measures", "exact"):
            if not getattr(self, name):
                raise SettingsError(f"no {name} is named", where=f"statistic.{name}", remedy="name at least one")


@statistic(
    "invariance",
    arguments=Invariance,
    unit="1",
    estimator="share of units of analysis in which no exact transformation moves the measure, exact binomial",
    source="clopper1934",
    limits=("It is about the transformations that were made, not about all that leave the function alone.",),
)
def invariance(table: pl.DataFrame, arguments: Invariance, sampling: Sampling) -> Evidence:
    """Compare each measure after a transformation with the same before: |after − before| / |before|.

    Args:
        table: a row a network and transformation.
        arguments: columns, transformations and tolerance.
        sampling: families and unit of analysis.

    Returns:
        The share of units that keep still, a measure and family; the largest movement by transformation and the
        nuisance range under gain (largest over smallest, median over networks) as readings.

    Raises:
        DataError: a network stands in the table twice under one transformation.
    """
    import polars as pl

    a = arguments
    keys = list(dict.fromkeys(("family", *sampling.unit, *a.network)))
    columns_of(table, [*keys, a.transformation, *a.measures])
    wide = table.select(*keys, a.transformation, *(pl.col(m).cast(pl.Float64, strict=False) for m in a.measures))
    if wide.select(*keys, a.transformation).is_duplicated().any():
        raise DataError(
            "a network stands twice under one transformation",
            where="statistic.network",
            remedy="name all columns that tell networks apart",
        )
    before = wide.filter(pl.col(a.transformation) == a.none).drop(a.transformation)
    moved = wide.filter(pl.col(a.transformation) != a.none).join(before, on=keys, suffix=" before")
    for m in a.measures:
        start = pl.col(f"{m} before")
        moved = moved.with_columns(((pl.col(m) - start).abs() / start.abs()).alias(f"{m} moved"))
    exact = moved.filter(pl.col(a.transformation).is_in(list(a.exact)))
    effects: dict[str, dict[str, Effect | Absent]] = {m: {} for m in a.measures}
    for family, of in sampling.split(exact):
        for m in a.measures:
            effects[m][family] = _still(of, m, a, sampling)
    return Evidence(
        {m: averaged(by) for m, by in effects.items()},
        before.height,
        0,
        _readings(moved, wide, a, keys),
        (_figure(moved, a),),
        {"moved": {c: moved[c].to_list() for c in (*keys, a.transformation, *(f"{m} moved" for m in a.measures))}},
    )


def _still(rows: pl.DataFrame, measure: str, a: Invariance, sampling: Sampling) -> ShareEffect | Absent:
    """Units all of whose networks keep the measure still under every exact transformation.

    A movement that is not known, since a value is missing or zero before, is one beyond the tolerance.
    """
    import polars as pl

    known = rows.filter(pl.col(f"{measure} before").is_not_null())
    if not known.height:
        return Absent("it was not measured before and after", "measure it")
    moved = pl.col(f"{measure} moved")
    still = (moved.is_finite() & (moved <= a.tolerance)) | ((pl.col(f"{measure} before") == 0) & (pl.col(measure) == 0))
    by_unit = known.group_by(list(sampling.unit)).agg(still.fill_null(False).all().alias("still"))
    return ShareEffect(int(by_unit["still"].sum()), by_unit.height)


def _readings(
    moved: pl.DataFrame, wide: pl.DataFrame, a: Invariance, keys: list[str]
) -> dict[str, tuple[Value | Absent, str]]:
    import polars as pl

    readings: dict[str, tuple[Value | Absent, str]] = {}
    for m in a.measures:
        for name in (*a.exact, *a.gains):
            largest: Any = moved.filter(pl.col(a.transformation) == name)[f"{m} moved"].max()
            count = int((moved[a.transformation] == name).sum())
            if isinstance(largest, float):
                readings[f"{m}.largest movement.{name}"] = (Value(largest, count), "1")
        if a.gains:
            gained = wide.filter(pl.col(a.transformation).is_in([*a.gains, a.none]))
            size = pl.col(m).abs()
            by = gained.group_by(keys).agg((size.max() / size.min()).alias("range"))["range"].drop_nulls()
            middle: Any = by.median()
            if isinstance(middle, float) and math.isfinite(middle):
                readings[f"{m}.nuisance range"] = (Value(middle, len(by), how="median over networks"), "1")
    return readings


def _figure(moved: pl.DataFrame, a: Invariance) -> Figure:
    """The largest movement of each measure under each transformation; none at all stands at the least that is seen."""
    import polars as pl

    names = [*a.exact, *a.gains]
    series = []
    for m in a.measures:
        tops: list[float] = []
        for name in names:
            top: Any = moved.filter(pl.col(a.transformation) == name)[f"{m} moved"].max()
            tops.append(max(float(top), 1e-16) if isinstance(top, float) else math.nan)
        series.append(Series(m, names, tops, "points"))
    caption = f"Largest relative movement over networks; up to {a.tolerance:g} counts as none, 1e-16 stands for 0."
    return Figure("moved", "How far measures move", caption, "", "relative movement", tuple(series), y_scale="log")
