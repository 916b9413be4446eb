"""Several estimates of one quantity on the same networks: do they agree within their stated errors?"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import combinations
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from memspace.arguments import check_fields
from memspace.auditing.results import Figure, Series
from memspace.claims.effects import ANGLE, Effect, ShareEffect
from memspace.claims.evidence import Evidence, averaged
from memspace.claims.sampling import Codes, Floats, Sampling, complete, numbers, ratio
from memspace.claims.statistic import statistic
from memspace.errors import DataError, SettingsError
from memspace.limits import one_of
from memspace.value import Absent, Value

if TYPE_CHECKING:
    import polars as pl

__all__ = ["JUDGED", "Agreement", "agreement"]

JUDGED = ("share", "concordance")
Flags = NDArray[np.bool_]


@dataclass(frozen=True)
class Agreement:
    """Arguments of the statistic ``agreement``.

    Args:
        estimates: columns of the estimates, in one unit.
        errors: columns of their standard errors, in the same order.
        judged: what the decision is about: ``share`` of networks on which all agree, or ``concordance``.
        logarithm: whether biases and concordance are those of logarithms; z statistics use the estimates as they are.

    Raises:
        SettingsError: there are fewer than two estimates, or not as many errors.
    """

    estimates: tuple[str, ...]
    errors: tuple[str, ...]
    judged: str = "share"
    logarithm: bool = False

    def __post_init__(self) -> None:
        check_fields(self)
        one_of(self.judged, JUDGED, "judged")
        if len(self.estimates) < 2 or len(self.estimates) != len(self.errors):
            raise SettingsError(
                f"{len(self.estimates)} estimates with {len(self.errors)} errors",
                where="statistic.errors",
                remedy="name at least two estimates, and an error for each",
            )


@statistic(
    "agreement",
    arguments=Agreement,
    unit="1",
    estimator="share of networks on which all estimates agree (χ² of their spread over stated errors), or ICC(A,1)",
    source="mcgraw1996, bland1986",
    limits=("Estimates with large stated errors agree easily: look at the errors and at the concordance too.",),
)
def agreement(table: pl.DataFrame, arguments: Agreement, sampling: Sampling) -> Evidence:
    """Compare estimates network by network, z statistics and biases pair by pair.

    All agree on a network where Q = Σ (x − x̄)²/s², x̄ weighted by 1/s², is at most the 95% quantile of χ² with k − 1
    degrees of freedom: with honest errors they do on 95% of networks. Concordance is the intraclass correlation of
    absolute agreement, ICC(A,1) of McGraw & Wong 1996. The bias of a pair is that of Bland & Altman 1986.

    Args:
        table: a row a network.
        arguments: columns of estimates and errors.
        sampling: families, unit of analysis, resamples.

    Returns:
        Share of units in which all agree on most networks, or concordance, a family.

    Raises:
        DataError: a stated error is not positive, or a logarithm is asked for of an estimate that is not.
    """
    a = arguments
    rows = complete(table, [*a.estimates, *a.errors])
    needed = [*a.errors, *(a.estimates if a.logarithm else ())]
    for name in needed:
        if rows.height and float(numbers(rows, name).min()) <= 0:
            raise DataError(f"{name} is not positive everywhere", where="statistic", remedy="mend the table")
    effects: dict[str, Effect | Absent] = {}
    readings: dict[str, tuple[Value | Absent, str]] = {}
    agreed = _agree(*(np.stack([numbers(rows, n) for n in names], axis=1) for names in (a.estimates, a.errors)))
    for family, of in sampling.split(rows):
        x, s = (np.stack([numbers(of, n) for n in names], axis=1) for names in (a.estimates, a.errors))
        if not of.height:
            effects[family] = Absent("there are no networks", "train some")
            continue
        units = sampling.units(of)
        size = np.bincount(units)
        share = ShareEffect(int((np.bincount(units, _agree(x, s)) > size / 2).sum()), len(size))
        scaled = np.log(x) if a.logarithm else x
        concordance = sampling.bootstrap(units, _weighted_concordance(scaled), ANGLE)
        effects[family] = share if a.judged == "share" else concordance
        readings |= _pair_readings(family, scaled, (x, s), units, a)
        if a.judged == "share" and not isinstance(concordance, Absent):
            readings[f"concordance.{family}"] = (concordance.stated(), "1")
        if a.judged == "concordance":
            readings[f"share agreeing.{family}"] = (share.stated(), "1")
    names = ("family", *sampling.unit, *a.estimates, *a.errors)
    listed = {c: rows[c].to_list() for c in dict.fromkeys(names)} | {"agree": agreed.tolist()}
    return Evidence(
        {"": averaged(effects)},
        rows.height,
        table.height - rows.height,
        readings,
        _figures(rows, a, sampling),
        {"estimates": listed},
    )


def _agree(x: Floats, s: Floats) -> Flags:
    precision = 1 / s**2
    centre = (precision * x).sum(1, keepdims=True) / precision.sum(1, keepdims=True)
    spread = (precision * (x - centre) ** 2).sum(1)
    return np.asarray(spread <= stats.chi2.ppf(0.95, x.shape[1] - 1))


def _weighted_concordance(x: Floats) -> Callable[[Floats], Floats]:
    """ICC(A,1) of rows that come with weights, from the mean squares of a two-way analysis of variance."""

    def concordance(weights: Floats) -> Floats:
        n, k = weights.sum(1), x.shape[1]
        columns = weights @ x / n[:, None]
        total = columns.mean(1)
        means = x.mean(1)
        between = k * (weights * (means[None, :] - total[:, None]) ** 2).sum(1)
        raters = n * ((columns - total[:, None]) ** 2).sum(1)
        squares = np.einsum("bn,bnk->b", weights, (x[None] - total[:, None, None]) ** 2)
        left = np.maximum(squares - between - raters, 0.0)
        row, column, rest = between / (n - 1), raters / (k - 1), left / ((n - 1) * (k - 1))
        size = row + (k - 1) * rest + k / n * (column - rest)
        return ratio(row - rest, size)

    return concordance


def _pair_readings(
    family: str, scaled: Floats, stated: tuple[Floats, Floats], units: Codes, a: Agreement
) -> dict[str, tuple[Value | Absent, str]]:
    """By pair of estimates: the bias, its spread over networks, and how often |z| is above 1.96."""
    readings: dict[str, tuple[Value | Absent, str]] = {}
    x, s = stated
    for i, j in combinations(range(len(a.estimates)), 2):
        pair = f"{a.estimates[i]} less {a.estimates[j]}.{family}"
        difference = scaled[:, i] - scaled[:, j]
        z = (x[:, i] - x[:, j]) / np.hypot(s[:, i], s[:, j])
        unit = "log" if a.logarithm else "unit of the estimates"
        readings[f"bias, {pair}"] = (Value.mean(difference, groups=units), unit)
        if len(difference) > 1:
            spread = float(difference.std(ddof=1))
            limits = (float(difference.mean()) - 1.96 * spread, float(difference.mean()) + 1.96 * spread)
            words = f"limits of agreement {limits[0]:.3g} to {limits[1]:.3g}"
            readings[f"spread, {pair}"] = (Value(spread, len(difference), how=words), unit)
        readings[f"|z| above 1.96, {pair}"] = (Value.share(np.abs(z) > 1.96, groups=units), "1")
    return readings


def _figures(rows: pl.DataFrame, a: Agreement, sampling: Sampling) -> tuple[Figure, ...]:
    """Every estimate against the first."""
    first, *others = a.estimates
    x, low = numbers(rows, first).tolist(), a.errors[1:]
    series = []
    for name, error in zip(others, low, strict=True):
        y, e = numbers(rows, name), 1.96 * numbers(rows, error)
        text = [" ".join(map(str, row)) for row in rows.select(*dict.fromkeys(("family", *sampling.unit))).iter_rows()]
        series.append(Series(name, x, y.tolist(), "points", (y - e).tolist(), (y + e).tolist(), text))
    if rows.height:
        ends = [min(x), max(x)]
        series.append(Series("equal", ends, ends))
    return (Figure("estimates", f"Estimates against {first}", "A point a network.", first, "estimate", tuple(series)),)
