"""95% intervals of means, shares, changes of shares and ratios, made to cover at the sample sizes an audit has.

Every function is deterministic and returns ends that hold at least about nineteen times in twenty; where the sample
cannot carry such an interval, ``doubt`` says why, and the number is to be marked not reliable.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import special

__all__ = [
    "LEVEL",
    "Interval",
    "around",
    "floats",
    "margin",
    "of_change",
    "of_difference",
    "of_grouped_share",
    "of_independent_ratio",
    "of_mean",
    "of_ratio",
    "of_share",
]

LEVEL = 0.95
_FEW = 5  # below, a sample skewness says nothing and Student's t is used as it is
_SKEWED_FEW = 20  # below, no method tried covers the mean of a skewed sample
_TAIL = 10.0  # samples needed per unit of q90/q75: with fewer, the largest values are likely not in the sample yet

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Interval:
    """A 95% interval.

    Args:
        ends: its ends, None where there are none.
        doubt: the reason for which they may not cover ("" if none).
    """

    ends: tuple[float, float] | None
    doubt: str = ""


def margin(error: Any, df: float | None = None, level: float = LEVEL) -> Any:
    """Compute half the width of a 95% interval of a standard error: by Student's t where ``df`` is given, else normal.

    Args:
        error: standard error: a number, array or tensor.
        df: degrees of freedom with which the error itself was estimated, for example draws − 1; infinite if None.
        level: another than 95%, where several intervals have to hold at once.

    Returns:
        In the unit and type of ``error``; infinite where ``df`` is not positive.
    """
    upper = (1 + level) / 2
    if df is None or math.isinf(df):
        return error * float(special.ndtri(upper))
    quantile = float(special.stdtrit(df, upper)) if df > 0 else math.inf
    return error * quantile


def around(
    value: float, error: float, df: float | None = None, *, lower: float = -math.inf, upper: float = math.inf
) -> tuple[float, float]:
    """Compute ``value`` ± :func:`margin`, cut at the bounds that the quantity cannot pass.

    Args:
        value: the estimate.
        error: its standard error.
        df: degrees of freedom of the error, None for many.
        lower: bound of the quantity.
        upper: bound of the quantity.

    Returns:
        The interval's ends.
    """
    half = margin(error, df)
    return max(lower, value - half), min(upper, value + half)


def of_mean(samples: Any, *, groups: Any = None, lower: float = -math.inf, upper: float = math.inf) -> Interval:
    """Compute the interval of a mean by Hall's transformation of Student's t, monotone and corrected for skewness.

    T + g T²/3√n + g² T³/27n + g/6√n with the sample's skewness g is closer to Student's t than T is (Hall 1992,
    eq. 2.1). On exponential, gamma and log-normal samples and on cross-entropy losses it covers as well as the
    bootstrap-t, and better than t, BCa and empirical likelihood.

    Args:
        samples: (n,) numbers.
        groups: (n,) labels of what was drawn independently, where samples come in groups (the positions of one
            sequence); the mean is over samples, its error over groups.
        lower: bound that every sample keeps, 0 for losses. The interval is cut there, and samples with a lower bound
            are taken as skewed: fewer than twenty, or a tail longer than the sample shows, are doubtful.
        upper: bound that every sample keeps; the interval is cut there.

    Returns:
        The ends, and a doubt where the sample is too small, constant, or its tail too long. A rare event that the
        sample does not hold (a share of less than 3/n of the examples) cannot be foreseen by any interval.
    """
    x = floats(samples)
    if not np.isfinite(x).all():
        return Interval(None, "some samples are not finite")
    value = float(x.mean()) if len(x) else math.nan
    parts = x if groups is None else value + _group_parts(x, groups, value)
    n = len(parts)
    if n < 2:
        return Interval(None, "fewer than two independent samples")
    spread = float(parts.std(ddof=1))
    if spread <= 1e-12 * abs(value) or spread == 0:
        return Interval((value, value), f"all {n} samples are equal: nothing is known of their spread")
    error = spread / math.sqrt(n)
    low, high = _hall(parts, error)
    ends = max(lower, value - high), min(upper, value - low)
    return Interval(ends, _tail_doubt(x, n, lower) if math.isfinite(lower) else "")


def of_share(hits: float, n: float, level: float = LEVEL) -> Interval:
    """Compute the Clopper–Pearson interval of a share: it covers at least 95% whatever the true share; [1, 1] never.

    Args:
        hits: number of hits; need not be whole (effective sample sizes).
        n: number of tries, alike.
        level: another than 95%, where several intervals have to hold at once.

    Returns:
        The ends, none without tries.
    """
    if not 0 <= hits <= n or n <= 0:
        return Interval(None, "no examples")
    upper = (1 + level) / 2
    low = float(special.betaincinv(hits, n - hits + 1, 1 - upper)) if hits > 0 else 0.0
    high = float(special.betaincinv(hits + 1, n - hits, upper)) if hits < n else 1.0
    return Interval((low, high))


def of_grouped_share(right: Any, groups: Any = None) -> Interval:
    """Compute the Clopper–Pearson interval at the effective sample size that groups leave (Korn & Graubard 1998).

    Args:
        right: (n,) of 0 and 1, or each example's own share of right positions.
        groups: (n,) labels of what was drawn independently, for example the sequence a position belongs to; by
            default every entry is.

    Returns:
        The ends, none with fewer than two groups.
    """
    x = floats(right)
    value = float(x.mean()) if len(x) else math.nan
    parts = _group_parts(x, np.arange(len(x)) if groups is None else groups, value)
    count = len(parts)
    if count < 2:
        return Interval(None, "fewer than two independent groups")
    variance = float(parts.var(ddof=1)) / count
    most = float(len(x)) if bool(np.isin(x, (0.0, 1.0)).all()) else math.inf
    # All right or all wrong: within a group nothing is known to be independent, so a group counts once.
    size = float(count) if variance == 0 else min(most, value * (1 - value) / variance)
    size *= (margin(1.0) / margin(1.0, count - 1)) ** 2
    return of_share(value * size, size)


def of_change(before: Any, after: Any, *, groups: Any = None, level: float = LEVEL) -> Interval:
    """Compute the interval of mean(after) − mean(before), both 0 or 1 (or shares of positions) on the same examples.

    Wald's interval with one more example that gained and one that lost (Bonett & Price 2012).

    Args:
        before: (n,) of 0 and 1.
        after: (n,) of 0 and 1.
        groups: (n,) labels of what was drawn independently; the error grows by what the groups' own spread shows.
        level: of the interval.

    Returns:
        The ends, none without examples.
    """
    change = floats(after) - floats(before)
    n = len(change)
    if n == 0:
        return Interval(None, "no examples")
    total = n + 2
    value = float(change.sum()) / total
    error = math.sqrt(max((float((change**2).sum()) + 2) / total - value**2, 0.0) / total)
    df = None
    if groups is not None:
        parts = _group_parts(change, groups, float(change.mean()))
        if len(parts) < 2:
            return Interval(None, "fewer than two independent groups")
        df = len(parts) - 1.0
        plain = max(float(change.var()), 1e-300)
        grown = float(parts.var(ddof=1)) / len(parts) * n / plain if change.any() else n / len(parts)
        error *= math.sqrt(max(grown, 1.0))
    half = margin(error, df, level)
    return Interval((max(-1.0, value - half), min(1.0, value + half)))


def of_difference(first: float, n: float, second: float, m: float) -> Interval:
    """Compute the interval of a share of n less an independent share of m: Newcombe 1998, method 10, from exact ends.

    Args:
        first: the share of n.
        n: number of tries behind it.
        second: the share of m.
        m: number of tries behind it.

    Returns:
        The ends, none without tries.
    """
    one, other = of_share(first * n, n).ends, of_share(second * m, m).ends
    if one is None or other is None:
        return Interval(None, "no examples")
    below = math.hypot(first - one[0], other[1] - second)
    above = math.hypot(one[1] - first, second - other[0])
    return Interval((max(-1.0, first - second - below), min(1.0, first - second + above)))


def of_ratio(above: Any, below: Any) -> Interval:
    """Compute Fieller's interval of mean(above) / mean(below), both measured on the same samples.

    Args:
        above: (n,) numbers.
        below: (n,) numbers.

    Returns:
        the ends; none where the denominator's mean may be zero.
    """
    a, b = floats(above), floats(below)
    n = len(a)
    if n < 2:
        return Interval(None, "fewer than two samples")
    covariance = np.cov(a, b) / n
    q = margin(1.0, n - 1) ** 2
    top, bottom = float(a.mean()), float(b.mean())
    square = bottom**2 - q * float(covariance[1, 1])
    if square <= 0:
        return Interval(None, "the denominator may be zero")
    middle = top * bottom - q * float(covariance[0, 1])
    root = math.sqrt(max(middle**2 - square * (top**2 - q * float(covariance[0, 0])), 0.0))
    return Interval(((middle - root) / square, (middle + root) / square))


def of_independent_ratio(
    above: float, above_ends: tuple[float, float] | None, below: float, below_ends: tuple[float, float] | None
) -> tuple[float, float] | None:
    """Compute the interval of a ratio of two positive numbers measured apart, from the interval of each.

    On a logarithmic scale each end lies as far from the value as the two ends that push it there lie from theirs, in
    the root of the sum of squares (Zou & Donner 2008).

    Args:
        above: the number above.
        above_ends: its interval.
        below: the number below.
        below_ends: its interval.

    Returns:
        The ends; None where an interval is missing or reaches zero.
    """
    if above_ends is None or below_ends is None:
        return None
    ends = (above_ends[0], below_ends[0], above, below)
    if min(ends) <= 0 or not all(math.isfinite(v) for v in (*ends, above_ends[1], below_ends[1])):
        return None
    log, ratio = math.log, above / below
    down = math.hypot(log(above / above_ends[0]), log(below_ends[1] / below))
    up = math.hypot(log(above_ends[1] / above), log(below / below_ends[0]))
    return ratio * math.exp(-down), ratio * math.exp(up)


def floats(values: Any) -> Floats:
    """Turn numbers, an array or a tensor into (n,) float64.

    Args:
        values: any of these.

    Returns:
        A flat array on the CPU.
    """
    if hasattr(values, "detach"):
        values = values.detach().cpu()
    elif not hasattr(values, "dtype"):
        values = [float(v) for v in values]
    return np.asarray(values, dtype=np.float64).ravel()


def _group_parts(x: Floats, groups: Any, value: float) -> Floats:
    """Each group's part in the error of a mean over all samples, (groups,): linearised ratio of sums, mean 0."""
    _, at = np.unique(np.asarray(groups), return_inverse=True)
    sums = np.bincount(at.ravel(), x - value)
    return sums * len(sums) / max(len(x), 1)


def _hall(x: Floats, error: float) -> tuple[float, float]:
    """How far the mean may lie above the truth, at the lower and at the upper 2.5%."""
    n = len(x)
    quantile = margin(1.0, n - 1)
    if n < _FEW:
        return -quantile * error, quantile * error
    centred = x - x.mean()
    centred = centred / np.abs(centred).max()  # cubes of tiny numbers would round to 0
    skewness = float((centred**3).mean() / (centred**2).mean() ** 1.5) * math.sqrt(n * (n - 1)) / (n - 2)
    a, b = skewness / (3 * math.sqrt(n)), skewness / (6 * math.sqrt(n))
    if abs(a) < 1e-7:
        return -quantile * error, quantile * error
    low, high = (float(np.cbrt(1 + 3 * a * (q - b)) - 1) / a for q in (-quantile, quantile))
    return low * error, high * error


def _tail_doubt(x: Floats, n: int, lower: float) -> str:
    """Why the interval may miss the mean of skewed samples, n of them independent.

    The two quantiles hardly depend on whether the largest values happen to be in the sample; a rule that looked at
    skewness or at the largest values would pass exactly the samples that miss them.
    """
    if n < _SKEWED_FEW:
        return f"{n} samples of a quantity that may be skewed are too few for an interval"
    near, far = (float(q) for q in np.quantile(x - lower, (0.75, 0.9)))
    if n * near < _TAIL * far:
        return f"the mean rests on a few of the {n} samples: their tail is too long for their number"
    return ""
