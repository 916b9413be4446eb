"""Layers of a network: does what is measured of a layer say what re-initialising it costs, and does depth?"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

import numpy as np
from scipy import stats

from memspace.arguments import check_fields
from memspace.auditing.results import Figure, Series
from memspace.claims.effects import Effect, StudentEffect, mean_of
from memspace.claims.evidence import Evidence, averaged
from memspace.claims.sampling import FEWEST, Codes, Floats, Sampling, codes_of, complete, numbers
from memspace.claims.statistic import statistic
from memspace.limits import SEVERAL, one_of
from memspace.value import Absent, Value

if TYPE_CHECKING:
    import polars as pl

__all__ = ["JUDGED", "LayerRanks", "layer_ranks"]

JUDGED = ("measure", "depth")


@dataclass(frozen=True)
class LayerRanks:
    """Arguments of the statistic ``layer ranks``, whose table has a row a layer.

    Args:
        network: columns that name a network.
        measure: column of what is measured of a layer, for example its Fisher mass.
        cost: column of what re-initialising it costs.
        depth: column of its place, from the input on.
        judged: what the decision is about: the correlation of the cost with the ``measure`` or with the ``depth``.
        layers: networks with fewer are left out.

    Raises:
        SettingsError: a value is out of its range.
    """

    network: tuple[str, ...]
    measure: str
    cost: str
    depth: str
    judged: str = "measure"
    layers: Annotated[int, SEVERAL] = 3

    def __post_init__(self) -> None:
        check_fields(self)
        one_of(self.judged, JUDGED, "judged")


@statistic(
    "layer ranks",
    arguments=LayerRanks,
    unit="1",
    estimator="Spearman's correlation over the layers of a network, mean over units of analysis, Student",
    limits=("A correlation within a network of few layers is coarse; its mean over networks is what is judged.",),
)
def layer_ranks(table: pl.DataFrame, arguments: LayerRanks, sampling: Sampling) -> Evidence:
    """Compare the cost of layers with their measure and with their depth inside each network.

    Args:
        table: a row a layer.
        arguments: columns, and which correlation is judged.
        sampling: families and unit of analysis.

    Returns:
        The mean correlation a family; the other one as a reading.
    """
    a = arguments
    rows = complete(table, [a.measure, a.cost, a.depth], a.network)
    effects: dict[str, dict[str, Effect | Absent]] = {name: {} for name in JUDGED}
    used, short = 0, 0
    for family, of in sampling.split(rows):
        networks, units = codes_of(of, a.network), sampling.units(of)
        within: dict[str, list[float]] = {name: [] for name in JUDGED}
        unit_of: list[int] = []
        for network in np.unique(networks):
            at = np.flatnonzero(networks == network)
            cost, measure, depth = (numbers(of, n)[at] for n in (a.cost, a.measure, a.depth))
            if len(at) < a.layers or min(np.ptp(cost), np.ptp(measure), np.ptp(depth)) == 0:
                short += 1
                continue
            used += 1
            unit_of.append(int(units[at[0]]))
            within["measure"].append(float(stats.spearmanr(measure, cost).statistic))
            within["depth"].append(float(stats.spearmanr(depth, cost).statistic))
        for name in JUDGED:
            effects[name][family] = _mean_over_units(np.array(within[name]), np.array(unit_of, dtype=np.int64))
    readings: dict[str, tuple[Value | Absent, str]] = {}
    for name in JUDGED:
        overall = mean_of(list(effects[name].values()))
        if name != a.judged and not isinstance(overall, Absent):
            readings[f"correlation with {name}"] = (overall.stated(), "1")
    notes = (f"{short} networks are left out: fewer than {a.layers} layers, or all of them alike.",) if short else ()
    names = dict.fromkeys(("family", *a.network, a.depth, a.measure, a.cost))
    return Evidence(
        {"": averaged(effects[a.judged])},
        used,
        table.height - rows.height,
        readings,
        (_figure(rows, a, sampling),),
        {"layers": {c: rows[c].to_list() for c in names}},
        notes,
    )


def _mean_over_units(values: Floats, units: Codes) -> StudentEffect | Absent:
    """The mean of the units' means, each unit counted alike."""
    means = np.array([values[units == unit].mean() for unit in np.unique(units)])
    count = len(means)
    if count < FEWEST:
        return Absent(f"there are {count} units of analysis", f"train at least {FEWEST}")
    return StudentEffect(float(means.mean()), float(means.std(ddof=1)) / math.sqrt(count), count - 1, count)


def _figure(rows: pl.DataFrame, a: LayerRanks, sampling: Sampling) -> Figure:
    """What a layer costs by its place among the layers of its network, mean over networks."""
    import polars as pl

    place = (pl.col(a.depth).rank("dense").over(list(a.network)) - 1) / (
        pl.col(a.depth).n_unique().over(list(a.network)) - 1
    ).clip(1)
    share = (pl.col(a.cost).rank("average").over(list(a.network)) - 1) / (pl.len().over(list(a.network)) - 1).clip(1)
    placed = rows.with_columns(place=(place * 4).round() / 4, share=share)
    series = []
    for family, of in sampling.split(placed):
        if of.height:
            by = of.group_by("place").agg(pl.col("share").mean()).sort("place")
            series.append(Series(family, by["place"].to_list(), by["share"].to_list()))
    caption = "0 is the layer that costs least of its network, 1 the one that costs most; mean over networks."
    return Figure("depth", f"{a.cost} by depth", caption, "depth, from input to output", "rank of cost", tuple(series))
