"""Sign error in the worst environment (Dziugaite et al. 2020).

An environment is an intervention: a knob moved from one setting to another while every other is held. Its sign error
is the share of pairs of networks, one from either side, that measure and gap order differently; a tie is half an
error. A measure is robust where even its worst environment has a small one.

As in the paper and its published code, a pair counts by how surely its gaps differ at all: w = (v − ½)₊ with
v = Π (1 − 2 exp(−Δ²/8σ²))₊ over its two networks, where Hoeffding's inequality gives σ² = 1/(4·tested) for a gap of
accuracy and the difference of gaps is Δ. An environment counts where its effective sample size (Σw)²/Σw² is at least
12. The 90th percentile counts every environment in both directions. Beyond the paper, σ may be a column of standard
errors (``JudgingDesign.error``), for a gap of loss too; without either all pairs count alike.

The paper's environments are pairs of configurations, so 12 pairs need four seeds of each. With fewer seeds there are
environments of ``"settings"``: the same two settings of a knob wherever the other knobs agree.

Intervals resample configurations. That of the worst environment, which no resample exceeds, is widened to the exact
interval of the share of wrong pairs among as many as it has without a network in common; which environment is the
worst was found on the same networks, and the interval does not know it.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from scipy.stats import rankdata

from memspace.errors import SettingsError
from memspace.frames import polars
from memspace.intervals import of_share
from memspace.judging.design import JudgingDesign
from memspace.judging.resampling import DRAWS, Resamples
from memspace.judging.tables import NetworkRows, rows_of
from memspace.value import Absent, Value

if TYPE_CHECKING:
    import polars as pl

__all__ = ["LEAST", "SignError", "sign_error"]

Floats = NDArray[np.float64]
Codes = NDArray[np.int64]
LEAST = 12.0  # effective sample size of an environment
SURE = 0.5  # of a difference, for a pair to count


@dataclass(frozen=True)
class SignError:
    """How often a measure orders two networks wrongly, over environments.

    Args:
        mean: mean over environments, from 0 to 1; ½ is guessing.
        ninety: 90th percentile over environments.
        worst: the largest of any environment.
        table: a row an environment: ``knob``, ``low`` and ``high`` (the two settings), ``others`` (what is held),
            ``error``, ``size`` (effective).
        left_out: number of environments whose effective sample size is too small.
    """

    mean: Value
    ninety: Value
    worst: Value
    table: pl.DataFrame
    left_out: int

    @property
    def environments(self) -> int:
        """Number of environments."""
        return int(self.table.height)


@dataclass(frozen=True)
class _Pairs:
    """Pairs of networks from configurations that differ in few knobs."""

    first: Codes  # (pairs,) number of the network
    second: Codes
    weight: Floats  # (pairs,)
    error: Floats  # (pairs,) 0, ½ or 1
    couple: Codes  # (pairs,) number of the pair of configurations
    ends: Codes  # (couples, 2) these configurations
    environment: Codes  # (couples,) from 0
    example: Codes  # (environments, 2) two configurations that show what moves
    disjoint: Codes  # (environments,) pairs that share no network


def sign_error(
    table: pl.DataFrame,
    measure: str,
    design: JudgingDesign,
    *,
    direction: Literal[1, -1] = 1,
    environments: Literal["configurations", "settings"] = "configurations",
    differ: int = 1,
    least: float = LEAST,
    draws: int = DRAWS,
) -> SignError | Absent:
    """Compute the sign error of a measure over environments.

    Args:
        table: one row a network (:mod:`memspace.judging`).
        measure: column of the measure.
        design: of the table; ``tested`` or ``error`` say how sure a difference of gaps is.
        direction: 1 where a larger measure should go with a larger gap, −1 where with a smaller.
        environments: ``"configurations"``, two configurations each; ``"settings"``, two settings of a knob each.
        differ: number of knobs that may move at once.
        least: effective sample size below which an environment is left out.
        draws: of the bootstrap over configurations.

    Returns:
        Mean, 90th percentile and maximum with 95% intervals; absent where no environment is large enough.

    Raises:
        SettingsError: the direction is neither 1 nor −1, or no knob may move.
    """
    if direction not in (1, -1) or differ < 1:
        raise SettingsError(
            f"direction is {direction} and differ {differ}", where="sign_error", remedy="give ±1, and 1 or more"
        )
    besides = () if design.error is None else (design.error,)
    rows = rows_of(table, measure, design, besides)
    if isinstance(rows, Absent):
        return rows
    pairs = _pairs(rows, direction, environments == "settings", differ)
    if pairs is None:
        return Absent("no two configurations differ in so few knobs", "train a grid, or let more knobs differ")
    chosen, size, total = _large_enough(pairs, least)
    if not chosen.any():
        reason = f"no environment has an effective sample of {least:g}: the largest has {size.max():.1f}"
        return Absent(reason, "train more seeds, or take environments of settings")
    resamples = Resamples.of(rows.configurations, draws)
    errors, weights = _resampled(pairs, chosen, resamples, environments == "settings")
    named = _named(rows, pairs, chosen, errors[0], size, environments == "settings")
    used = chosen[pairs.environment[pairs.couple]]
    n = len(np.unique(np.concatenate([pairs.first[used], pairs.second[used]])))
    apart = int(pairs.disjoint[chosen].max())
    mean = _share(resamples, (errors * weights).sum(1) / np.maximum(weights.sum(1), 1e-300), n, apart)
    ninety = _ninety(errors, weights)
    worst = np.where(weights > 0, errors, -1.0).max(1)
    worst = np.where(worst < 0, np.nan, worst)
    top = _never_sure(resamples.percentiles(worst, n), int(pairs.disjoint[chosen][errors[0] == worst[0]].max()))
    return SignError(mean, resamples.percentiles(ninety, n), top, named, int(total - chosen.sum()))


def _pairs(rows: NetworkRows, direction: int, by_setting: bool, differ: int) -> _Pairs | None:
    """All pairs of networks whose configurations differ in few knobs, by environment."""
    s = rows.settings
    moved = np.zeros((len(s), len(s)), np.int16)
    for knob in s.T:
        moved += knob[:, None] != knob[None]
    ends = np.argwhere(np.triu((moved >= 1) & (moved <= differ)))
    if not len(ends):
        return None
    sizes = np.bincount(rows.configuration)
    starts = np.cumsum(sizes) - sizes
    counts = sizes[ends].prod(1)
    of = np.repeat(np.arange(len(ends)), counts)
    place = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)
    across = sizes[ends[of, 1]]
    first, second = starts[ends[of, 0]] + place // across, starts[ends[of, 1]] + place % across
    example, disjoint, environment = ends, sizes[ends].min(1), np.arange(len(ends))
    if by_setting:
        apart = s[ends[:, 0]] != s[ends[:, 1]]
        key = np.concatenate([np.where(apart, s[ends[:, e]], -1) for e in (0, 1)], 1)
        _, once, code = np.unique(key, axis=0, return_index=True, return_inverse=True)
        environment = code.ravel()
        disjoint, example = np.bincount(environment, disjoint).astype(np.int64), ends[once]
    rank = rankdata(rows.measure, "dense").astype(np.int64)
    signs = np.sign(rank[first] - rank[second]) * np.sign(rows.gap[first] - rows.gap[second])
    weight, error = _weight(rows, first, second), (1 - direction * signs) / 2
    return _Pairs(first, second, weight, error, of, ends, environment, example, disjoint)


def _weight(rows: NetworkRows, first: Codes, second: Codes) -> Floats:
    """How surely the gaps of two networks differ, above one half."""
    design = rows.design
    if design.error is not None:
        variance = rows.frame[design.error].to_numpy().astype(np.float64) ** 2
    elif design.gap == "accuracy" and design.tested is not None:
        variance = np.full(rows.n, 1 / (4 * design.tested))
    else:
        return np.ones(len(first))
    square = (rows.gap[first] - rows.gap[second]) ** 2
    sure = np.ones(len(first))
    with np.errstate(divide="ignore", invalid="ignore"):
        for side in (first, second):
            exponent = np.where(square > 0, square / (8 * variance[side]), 0.0)
            sure *= np.maximum(1 - 2 * np.exp(-exponent), 0.0)
    return np.maximum(sure - SURE, 0.0)


def _large_enough(pairs: _Pairs, least: float) -> tuple[NDArray[np.bool_], Floats, int]:
    """Which environments count, their effective sample sizes, and their number."""
    count = len(pairs.example)
    total, square = (np.bincount(pairs.environment[pairs.couple], w, count) for w in (pairs.weight, pairs.weight**2))
    size = np.where(square > 0, total**2 / np.where(square > 0, square, 1.0), 0.0)
    return (size >= least * (1 - 1e-9)) & (total > 0), size, count


def _resampled(
    pairs: _Pairs, chosen: NDArray[np.bool_], resamples: Resamples, by_setting: bool
) -> tuple[Floats, Floats]:
    """Sign error and multiplicity of every environment in every resample, (resamples, environments) each.

    A pair of configurations counts as often as both were drawn together: so does its environment, or its part in one.
    """
    count = len(pairs.ends)
    weight = np.bincount(pairs.couple, pairs.weight, count)
    wrong = np.bincount(pairs.couple, pairs.weight * pairs.error, count)
    number = np.cumsum(chosen) - 1
    use = np.flatnonzero(chosen[pairs.environment] & (weight > 0))
    times = resamples.counts[:, pairs.ends[use, 0]] * resamples.counts[:, pairs.ends[use, 1]]
    if not by_setting:
        return np.broadcast_to(wrong[use] / weight[use], times.shape), times.astype(np.float64)
    place = (np.arange(len(use)), number[pairs.environment[use]])
    shape = (len(use), int(chosen.sum()))
    total, errors = (np.asarray(times @ sparse.csr_array((v[use], place), shape)) for v in (weight, wrong))
    there = total > 0
    return np.where(there, errors / np.where(there, total, 1.0), 0.0), there.astype(np.float64)


def _ninety(errors: Floats, times: Floats) -> Floats:
    """The 90th percentile of every row, every environment in both directions, as often as it counts."""
    order = np.argsort(errors, 1)
    errors = np.take_along_axis(errors, order, 1)
    upto = np.cumsum(2 * np.take_along_axis(times, order, 1), 1)
    place = 0.9 * (upto[:, -1:] - 1)
    low, high = (
        np.take_along_axis(errors, (upto > at).argmax(1)[:, None], 1) for at in (np.floor(place), np.ceil(place))
    )
    return np.where(upto[:, -1:] > 0, low + (place - np.floor(place)) * (high - low), np.nan)[:, 0]


def _share(resamples: Resamples, numbers: Floats, n: int, pairs: int) -> Value:
    """A share with its interval, made on the scale from −1 to 1, where a share of 0 or 1 is never sure."""
    value = resamples.value(1 - 2 * numbers, n, pairs=pairs)
    ends = value.interval
    return replace(
        value,
        value=float(numbers[0]),
        interval=None if ends is None else ((1 - ends[1]) / 2, (1 - ends[0]) / 2),
    )


def _never_sure(value: Value, pairs: int) -> Value:
    """The worst environment, its interval widened to the exact one of as many disjoint pairs as it has."""
    exact = of_share(value.value * pairs, pairs).ends
    if exact is None or value.interval is None:
        return value
    return replace(value, interval=(min(value.interval[0], exact[0]), max(value.interval[1], exact[1])))


def _named(
    rows: NetworkRows, pairs: _Pairs, chosen: NDArray[np.bool_], errors: Floats, size: Floats, by_setting: bool
) -> pl.DataFrame:
    """The table of environments, the worst first."""
    frames = polars()
    starts = np.flatnonzero(np.diff(rows.configuration, prepend=-1))
    settings = rows.frame[starts].select(rows.design.knobs).rows()
    records = []
    for a, b in pairs.example[chosen]:
        low, high = settings[a], settings[b]
        at = [k for k in range(len(low)) if rows.settings[a, k] != rows.settings[b, k]]
        rest = [f"{name} {low[k]}" for k, name in enumerate(rows.design.knobs) if k not in at]
        records.append(
            {
                "knob": ", ".join(rows.design.knobs[k] for k in at),
                "low": ", ".join(str(low[k]) for k in at),
                "high": ", ".join(str(high[k]) for k in at),
                "others": "any" if by_setting else ", ".join(rest),
            }
        )
    made: pl.DataFrame = frames.DataFrame(records).with_columns(
        error=frames.Series(errors), size=frames.Series(size[chosen])
    )
    return made.sort("error", descending=True, maintain_order=True)
