"""Pairs of networks alike in all but a measure: does the one with less of it generalise better?"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

import numpy as np
from scipy import special

from memspace.arguments import check_fields
from memspace.auditing.results import Figure, Series
from memspace.claims.effects import Effect, ShareEffect
from memspace.claims.evidence import Evidence, averaged
from memspace.claims.sampling import Codes, Floats, Sampling, codes_of, complete, numbers
from memspace.claims.statistic import statistic
from memspace.errors import SettingsError
from memspace.limits import POSITIVE, SIZE
from memspace.value import Absent, Value

if TYPE_CHECKING:
    import polars as pl

__all__ = ["MatchedPairs", "matched_pairs"]


@dataclass(frozen=True)
class MatchedPairs:
    """Arguments of the statistic ``matched pairs``.

    Args:
        measure: column in which the two networks of a pair differ.
        gap: column of the generalisation gap.
        same: columns that both share: data set, architecture.
        matched: column in which both nearly agree, as a rule the training loss.
        within: the largest difference in it.
        apart: the least difference in the measure, in spreads between seeds of one unit.
        logarithm: whether the measure is compared on a logarithmic scale.

    Raises:
        SettingsError: a value is out of its range.
    """

    measure: str
    gap: str
    same: tuple[str, ...]
    matched: str
    within: Annotated[float, SIZE]
    apart: Annotated[float, POSITIVE] = 2.0
    logarithm: bool = True

    def __post_init__(self) -> None:
        check_fields(self)


@dataclass(frozen=True)
class _Pairs:
    """The pairs of one family: rows of the network with less and with more of the measure, and how many were open."""

    less: list[int]
    more: list[int]
    candidates: int
    spread: float


@statistic(
    "matched pairs",
    arguments=MatchedPairs,
    unit="1",
    estimator="share of pairs in which the network with less of the measure has the smaller gap, exact binomial",
    source="clopper1934",
    limits=("Pairs are alike in what was matched; a hyper-parameter that moves both measure and gap may differ.",),
)
def matched_pairs(table: pl.DataFrame, arguments: MatchedPairs, sampling: Sampling) -> Evidence:
    """Count the pairs in which the network with less of a measure generalises better; each unit is in one pair at most.

    Pairs are chosen without looking at the gap: those of nearest training loss first. So that no unit counts twice,
    both units of a chosen pair are then closed. Equal gaps are left out, as in every sign test.

    Args:
        table: a row a network.
        arguments: columns, and how near and how far apart a pair is.
        sampling: families and unit of analysis.

    Returns:
        A share a family; the overall effect is of all pairs.

    Raises:
        SettingsError: a measure that is not positive is to be compared on a logarithmic scale.
    """
    a = arguments
    rows = complete(table, [a.measure, a.gap, a.matched], a.same)
    if a.logarithm and rows.height and float(numbers(rows, a.measure).min()) <= 0:
        raise SettingsError(
            f"{a.measure} is not positive everywhere", where="statistic.logarithm", remedy="register logarithm = false"
        )
    effects: dict[str, Effect | Absent] = {}
    listed: dict[str, list[object]] = {n: [] for n in ("family", "less", "more", "gap less", "gap more")}
    differences: list[float] = []
    readings: dict[str, tuple[Value | Absent, str]] = {}
    for family, of in sampling.split(rows):
        pairs = _pairs(of, a, sampling)
        if isinstance(pairs, Absent):
            effects[family] = pairs
            continue
        x, gap = numbers(of, a.measure), numbers(of, a.gap)
        signs = np.sign(gap[pairs.more] - gap[pairs.less])
        differences += (gap[pairs.more] - gap[pairs.less]).tolist()
        unequal = int((signs != 0).sum())
        effects[family] = _counted(int((signs > 0).sum()), unequal, len(signs) - unequal)
        readings[f"candidate pairs.{family}"] = (Value(pairs.candidates, of.height), "1")
        readings[f"spread between seeds.{family}"] = (Value(pairs.spread, of.height), "1")
        listed["family"] += [family] * len(signs)
        for side, at in (("less", pairs.less), ("more", pairs.more)):
            listed[side] += x[at].tolist()
            listed[f"gap {side}"] += gap[at].tolist()
    judged = averaged(effects)
    if isinstance(judged.overall, ShareEffect):
        readings["Bayes factor"] = (_bayes_factor(judged.overall), "1")
    figures = (_figure(differences, a.gap),) if differences else ()
    return Evidence({"": judged}, rows.height, table.height - rows.height, readings, figures, {"pairs": listed})


def _counted(hits: int, unequal: int, equal: int) -> ShareEffect | Absent:
    if not unequal:
        return Absent("no two networks are alike but for the measure", "train more settings to the same loss")
    return ShareEffect(hits, unequal, f"{equal} pairs of equal gaps left out" if equal else "")


def _pairs(rows: pl.DataFrame, a: MatchedPairs, sampling: Sampling) -> _Pairs | Absent:
    units, groups = sampling.units(rows), codes_of(rows, a.same)
    x, loss = numbers(rows, a.measure), numbers(rows, a.matched)
    x = np.log(x) if a.logarithm else x
    spread = _spread(x, units)
    if math.isnan(spread):
        return Absent("no unit of analysis has two seeds, so the spread between seeds is not known", "train more seeds")
    near = np.abs(loss[:, None] - loss[None, :])
    step = x[None, :] - x[:, None]  # [less, more]
    candidates = (
        (groups[:, None] == groups[None, :])
        & (units[:, None] != units[None, :])
        & (near <= a.within)
        & (step > 0)
        & (step >= a.apart * spread)
    )
    less, more = np.nonzero(candidates)
    order = np.lexsort((more, less, near[less, more]))
    closed: set[int] = set()
    chosen: list[tuple[int, int]] = []
    for i, j in zip(less[order].tolist(), more[order].tolist(), strict=True):
        if closed.isdisjoint((int(units[i]), int(units[j]))):
            closed |= {int(units[i]), int(units[j])}
            chosen.append((i, j))
    return _Pairs([i for i, _ in chosen], [j for _, j in chosen], len(less), spread)


def _spread(x: Floats, units: Codes) -> float:
    """Pooled standard deviation between rows of one unit; NaN where none has two."""
    sizes = np.bincount(units)
    free = int((sizes - 1).sum()) if len(sizes) else 0
    if free == 0:
        return math.nan
    means = np.bincount(units, x) / sizes
    return float(np.sqrt(((x - means[units]) ** 2).sum() / free))


def _bayes_factor(effect: ShareEffect) -> Value:
    """Evidence for a share anywhere above ½ over a share of ½: 2 ∫ pᵏ(1 − p)ⁿ⁻ᵏ dp from ½ to 1, times 2ⁿ."""
    k, n = effect.hits, effect.n
    above = float(special.betaincc(k + 1, n - k + 1, 0.5))
    log = math.log(2 * max(above, 1e-300)) + float(special.betaln(k + 1, n - k + 1)) + n * math.log(2)
    how = "share uniform above ½, over a share of ½"
    return Value(math.exp(min(log, 700.0)), n, how=how)


def _figure(differences: list[float], gap: str) -> Figure:
    ordered = sorted(differences)
    series = Series("pairs", [float(k + 1) for k in range(len(ordered))], ordered, "bar")
    caption = "A bar a pair, in order: above 0 the network with less of the measure generalises better."
    return Figure("pairs", f"{gap}: with more less with less", caption, "pair", f"difference of {gap}", (series,))
