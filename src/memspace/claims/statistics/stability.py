"""Invariants against quantities that depend on the parameters: which agree between seeds, and which predict?"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from memspace.arguments import check_fields
from memspace.auditing.results import Figure, Series
from memspace.claims.effects import Effect, LeastEffect, mean_of
from memspace.claims.evidence import Evidence, averaged
from memspace.claims.ranks import PairMean, kendall, percentiles, tau_effect
from memspace.claims.sampling import FEWEST, Codes, Floats, Sampling, codes_of, complete, numbers, ratio
from memspace.claims.statistic import statistic
from memspace.limits import one_of
from memspace.value import Absent, Value

if TYPE_CHECKING:
    import polars as pl

__all__ = ["JUDGED", "Stability", "stability"]

JUDGED = ("both", "agreement", "prediction")


@dataclass(frozen=True)
class Stability:
    """Arguments of the statistic ``stability``.

    Args:
        invariant: column of a quantity that reparametrisation leaves alone.
        rival: column of one that it moves.
        property: column of what both are to predict.
        within: columns whose values two networks must share to be compared, for example the data set.
        judged: what the decision is about: ``agreement`` between seeds, ``prediction``, or the lesser of ``both``.

    Raises:
        SettingsError: a value is out of its range.
    """

    invariant: str
    rival: str
    property: str
    within: tuple[str, ...] = ()
    judged: str = "both"

    def __post_init__(self) -> None:
        check_fields(self)
        one_of(self.judged, JUDGED, "judged")


@statistic(
    "stability",
    arguments=Stability,
    unit="1",
    estimator="invariant less rival: intraclass correlation of ranks between seeds, and |Kendall's τ| with a property",
    source="mcgraw1996",
    limits=("One rival stands for many: another parameter-dependent quantity may do better.",),
)
def stability(table: pl.DataFrame, arguments: Stability, sampling: Sampling) -> Evidence:
    """Compare an invariant with a rival in their agreement between seeds and in what they predict.

    Agreement is the one-way intraclass correlation ICC(1) of percentile ranks: the share of the variance that lies
    between units of analysis and not between their seeds. Ranks make it the same for every monotone scale.

    Args:
        table: a row a network.
        arguments: columns, and what is judged.
        sampling: families, unit of analysis, resamples.

    Returns:
        The difference invariant less rival a family, of the lesser where both are judged.
    """
    a = arguments
    rows = complete(table, [a.invariant, a.rival, a.property], a.within)
    judged: dict[str, Effect | Absent] = {}
    singles: dict[str, list[Effect | Absent]] = {}
    for family, of in sampling.split(rows):
        effects = _family(of, a, sampling)
        judged[family] = effects.pop("judged")
        for name, effect in effects.items():
            singles.setdefault(name, []).append(effect)
    readings: dict[str, tuple[Value | Absent, str]] = {}
    for name, of_families in singles.items():
        overall = mean_of(of_families)
        readings[name] = (overall if isinstance(overall, Absent) else overall.stated(), "1")
    names = dict.fromkeys(("family", *sampling.unit, a.property, a.invariant, a.rival))
    return Evidence(
        {"": averaged(judged)},
        rows.height,
        table.height - rows.height,
        readings,
        tuple(_figure(rows, name, a.property, sampling) for name in (a.invariant, a.rival)),
        {"networks": {c: rows[c].to_list() for c in names}},
    )


def _family(rows: pl.DataFrame, a: Stability, sampling: Sampling) -> dict[str, Effect | Absent]:
    """The judged difference of one family, and the agreement and prediction of both quantities."""
    units = sampling.units(rows)
    weights, count = sampling.resampled(units)
    if count < FEWEST or int(np.bincount(units).max()) < 2:
        few = f"there are {count} units of analysis" if count < FEWEST else "no unit of analysis has two seeds"
        return {"judged": Absent(few, "train more seeds of more settings")}
    both = np.concatenate([np.ones((1, rows.height)), weights])  # the estimate, then its resamples
    strata = codes_of(rows, a.within)
    together = strata[:, None] == strata[None, :]
    effects: dict[str, Effect | Absent] = {}
    drawn: list[Floats] = []
    taus: list[PairMean] = []
    for name in (a.invariant, a.rival):
        x = numbers(rows, name)
        drawn.append(_agreement(both, percentiles(both, x, together), units))
        effects[f"agreement of {name}"] = sampling.effect(float(drawn[-1][0]), drawn[-1][1:], count)
        tau = kendall(x, numbers(rows, a.property), together, units)
        if tau is None:
            return {"judged": Absent(f"{name} or {a.property} is the same everywhere", "vary the networks more")}
        taus.append(PairMean(abs(tau.value), tau.influence * (1 if tau.value > 0 else -1), tau.shares))
        effects[f"prediction by {name}"] = tau_effect(taus[-1])
    step = drawn[0] - drawn[1]
    agreement = sampling.effect(float(step[0]), step[1:], count)
    step_in_influence = taus[0].influence - taus[1].influence
    prediction = tau_effect(PairMean(taus[0].value - taus[1].value, step_in_influence, taus[0].shares))
    judged: Effect | Absent = prediction
    if a.judged != "prediction":
        judged = agreement
    if a.judged == "both" and not isinstance(agreement, Absent):
        judged = LeastEffect({"agreement": agreement, "prediction": prediction})
    return effects | {"judged": judged}


def _agreement(weights: Floats, ranked: Floats, units: Codes) -> Floats:
    """ICC(1) by one-way analysis of variance: ranked (B, n), whole units weighted alike."""
    member = np.eye(int(units.max()) + 1)[units]  # (n, m)
    size = member.sum(0)
    often = weights @ member / size  # (B, m): how often each unit was drawn
    means = ranked @ member / size
    inside = np.maximum(ranked**2 @ member - size * means**2, 0.0)
    count, total = often.sum(1), (often * size).sum(1)
    grand = (often * size * means).sum(1) / total
    between = (often * size * (means - grand[:, None]) ** 2).sum(1) / np.maximum(count - 1, 1)
    free = (often * (size - 1)).sum(1)
    within = ratio((often * inside).sum(1), free)
    seeds = (total - (often * size**2).sum(1) / total) / np.maximum(count - 1, 1)
    spread = between + (seeds - 1) * within
    return ratio(between - within, spread)


def _figure(rows: pl.DataFrame, name: str, wanted: str, sampling: Sampling) -> Figure:
    series = tuple(
        Series(family, numbers(of, name).tolist(), numbers(of, wanted).tolist(), "points")
        for family, of in sampling.split(rows)
        if of.height
    )
    return Figure(f"of-{name}", f"{name} and {wanted}", "A point a network.", name, wanted, series)
