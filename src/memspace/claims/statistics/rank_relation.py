"""How far a measure orders networks as their generalisation gap does, whatever hyper-parameter is varied."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from memspace.arguments import check_fields
from memspace.auditing.results import Figure, Series
from memspace.claims.effects import ANGLE, Effect, LeastEffect, StudentEffect, mean_of
from memspace.claims.evidence import Evidence, averaged
from memspace.claims.ranks import (
    Mask,
    PairMean,
    granulated,
    kendall,
    mean_of_pairs,
    partial_correlation,
    percentiles,
    tau_effect,
)
from memspace.claims.sampling import FEWEST, Codes, Floats, Sampling, codes_of, complete, numbers
from memspace.claims.statistic import statistic
from memspace.errors import SettingsError
from memspace.limits import one_of
from memspace.value import Absent, Value

if TYPE_CHECKING:
    import polars as pl

__all__ = ["JUDGED", "RankRelation", "rank_relation"]

JUDGED = ("granulated", "overall", "worst", "partial")
ENOUGH = 3  # values of a knob that make a cell
_Relations = Mapping[str, Effect | Absent]


@dataclass(frozen=True)
class RankRelation:
    """Arguments of the statistic ``rank relation``.

    Args:
        measures: columns, each judged by itself; the sign is that of a measure which rises with the gap.
        gap: column of the generalisation gap.
        knobs: columns of hyper-parameters; a granulated τ compares networks that differ in one of them alone.
        within: columns whose values two networks must share to be compared, for example the data set.
        given: columns that a partial correlation holds fixed: training loss, log parameters, gain of the logits.
        judged: what the decision is about: ``granulated`` (mean over knobs), ``overall``, ``worst`` (the least of the
            knobs) or ``partial``.

    Raises:
        SettingsError: what is judged needs columns that are not named.
    """

    measures: tuple[str, ...]
    gap: str
    knobs: tuple[str, ...] = ()
    within: tuple[str, ...] = ()
    given: tuple[str, ...] = ()
    judged: str = "granulated"

    def __post_init__(self) -> None:
        check_fields(self)
        one_of(self.judged, JUDGED, "judged")
        for word, needed in (("granulated", "knobs"), ("worst", "knobs"), ("partial", "given")):
            if self.judged == word and not getattr(self, needed):
                raise SettingsError(f"{word} needs {needed}", where=f"statistic.{needed}", remedy="name columns")
        if not self.measures:
            raise SettingsError("no measure is named", where="statistic.measures", remedy="name a column")


@statistic(
    "rank relation",
    arguments=RankRelation,
    unit="1",
    estimator="Kendall's τ_b, error of pairs that share units of analysis",
    source="jiang2020, dziugaite2020, aronow2015",
    limits=(
        "A rank relation is not a cause: what else varies between the networks may move both.",
        "It is about the hyper-parameters that were varied here, and their ranges.",
    ),
)
def rank_relation(table: pl.DataFrame, arguments: RankRelation, sampling: Sampling) -> Evidence:
    """Compute overall, granulated, worst and partial rank relations of measures with the gap, by family.

    A cell of a knob is all networks that agree in every other one, their seeds together; ψ of the knob is the mean of
    τ_b over its cells, the granulated τ the mean of ψ over knobs (Jiang et al. 2020). A cell counts where the knob
    takes at least three values in it, or both where it has two in all. The sign error of a knob is (1 − ψ)/2.

    Args:
        table: a row a network.
        arguments: columns, and what is judged.
        sampling: families, unit of analysis, resamples.

    Returns:
        An effect a measure and family; all four relations as readings.
    """
    a = arguments
    rows = complete(table, [*a.measures, a.gap, *a.given], [*a.knobs, *a.within])
    relations = {m: {f: _family(rows_of, m, a, sampling) for f, rows_of in sampling.split(rows)} for m in a.measures}
    measures = {m: averaged({f: r[a.judged] for f, r in by.items()}) for m, by in relations.items()}
    readings = {}
    for m, by in relations.items():
        for kind in JUDGED:
            effects = [r[kind] for r in by.values()]
            if kind != a.judged and not all(isinstance(e, Absent) for e in effects):
                readings[f"{m}.{kind}"] = (_stated(mean_of(effects)), "1")
        readings |= _sign_errors(m, by)
    return Evidence(
        measures,
        rows.height,
        table.height - rows.height,
        readings,
        tuple(_scatter(k, m, rows, a.gap, sampling) for k, m in enumerate(a.measures)),
        {"networks": {c: rows[c].to_list() for c in ("family", *sampling.unit, a.gap, *a.measures)}},
    )


def _stated(effect: Effect | Absent) -> Value | Absent:
    return effect if isinstance(effect, Absent) else effect.stated()


def _sign_errors(
    measure: str, by: Mapping[str, Mapping[str, Effect | Absent]]
) -> dict[str, tuple[Value | Absent, str]]:
    """The worst knob's sign error by family: of the least granulated τ."""
    readings: dict[str, tuple[Value | Absent, str]] = {}
    for family, relations in by.items():
        worst = relations["worst"]
        if isinstance(worst, LeastEffect):
            ends = worst.ends()
            interval = None if ends is None else ((1 - ends[1]) / 2, (1 - ends[0]) / 2)
            value = Value((1 - worst.value) / 2, worst.n, interval, how=f"of {worst.least}", reliable=ends is not None)
            readings[f"{measure}.worst sign error.{family}"] = (value, "1")
    return readings


def _family(rows: pl.DataFrame, measure: str, a: RankRelation, sampling: Sampling) -> _Relations:
    """The four relations in one family."""
    units = sampling.units(rows)
    count = len(np.unique(units))
    if count < FEWEST:
        few = Absent(f"there are {count} units of analysis", f"train at least {FEWEST}")
        return dict.fromkeys(JUDGED, few)
    x, y = numbers(rows, measure), numbers(rows, a.gap)
    strata = codes_of(rows, a.within)
    together = strata[:, None] == strata[None, :]
    knobs = {knob: _along(rows, knob, a, (x, y), units) for knob in a.knobs}
    varied = {knob: tau for knob, tau in knobs.items() if tau is not None}
    overall = kendall(x, y, together, units)
    alike = Absent("no two networks differ in the measure and the gap", "vary the networks more")
    no_knob = Absent("no two networks differ in one knob alone", "cross the hyper-parameters") if a.knobs else Absent()
    return {
        "granulated": tau_effect(mean_of_pairs(list(varied.values()))) if varied else no_knob,
        "overall": tau_effect(overall) if overall is not None else alike,
        "worst": LeastEffect({knob: tau_effect(tau) for knob, tau in varied.items()}) if varied else no_knob,
        "partial": _partial(rows, measure, a, together, sampling),
    }


def _along(
    rows: pl.DataFrame, knob: str, a: RankRelation, columns: tuple[Floats, Floats], units: Codes
) -> PairMean | None:
    """The mean τ over the cells of a knob; None where there is no cell."""
    value, cell = codes_of(rows, [knob]), codes_of(rows, [*a.within, *(k for k in a.knobs if k != knob)])
    enough = min(ENOUGH, len(np.unique(value)))
    cells = [np.flatnonzero(cell == one) for one in np.unique(cell)] if enough > 1 else []
    return granulated(*columns, [at for at in cells if len(np.unique(value[at])) >= enough], units)


def _partial(
    rows: pl.DataFrame, measure: str, a: RankRelation, together: Mask, sampling: Sampling
) -> StudentEffect | Absent:
    """Spearman's correlation of measure and gap given the others; those that do not vary say nothing."""
    if not a.given or not (sampling.readings or a.judged == "partial"):
        return Absent()
    names = [n for n in a.given if rows[n].n_unique() > 1]
    columns = [numbers(rows, n) for n in (measure, a.gap, *names)]

    def correlation(weights: Floats) -> Floats:
        return partial_correlation(weights, np.stack([percentiles(weights, c, together) for c in columns], axis=2))

    return sampling.bootstrap(sampling.units(rows), correlation, ANGLE)


def _scatter(place: int, measure: str, rows: pl.DataFrame, gap: str, sampling: Sampling) -> Figure:
    series = tuple(
        Series(family, numbers(of, measure).tolist(), numbers(of, gap).tolist(), "points")
        for family, of in sampling.split(rows)
        if of.height
    )
    positive = all(v > 0 for s in series for v in s.x if isinstance(v, float))
    scale = "log" if positive and rows.height else "linear"
    return Figure(f"scatter-{place}", f"{measure} and {gap}", "A point a network.", measure, gap, series, scale)
