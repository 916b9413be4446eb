"""Intervals over configurations: every statistic is a function of how often each configuration counts.

A statistic is computed at once for rows of counts: the table as it is, then without each block of configurations (the
jackknife), then with configurations drawn with replacement (the bootstrap). All networks of a configuration are drawn
together, since its seeds are no new evidence about the hyper-parameters. The interval is the bias-corrected and
accelerated one (Efron 1987), whose acceleration the jackknife gives; the probability of chance is that of Student's t
with the jackknife's error, on Fisher's scale artanh for what lies between −1 and 1. For Kendall's τ over twelve to a
hundred configurations with one to three seeds, intervals covered in 92 to 99% of trials and independent columns were
called dependent in 2 to 6%, at nominal 95 and 5%.

A mean of τ over groups of three or four configurations is no case for drawing: a resample repeats some and loses
others, and copies cannot be ranked. There the error is the root of the mean of two jackknife variances, which err in
opposite directions by what pairs add beyond single configurations: leaving each configuration out counts that twice,
counting each a little more not at all. Over grids of 27 to 64 configurations with one to five seeds such intervals
covered in 92 to 99% of trials, and independent columns were called dependent in 1 to 6%.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import special

from memspace.intervals import margin, of_share
from memspace.value import Value

__all__ = ["DRAWS", "Correlation", "Jackknife", "Resamples"]

Floats = NDArray[np.float64]
DRAWS = 1000
BLOCKS = 100  # of the jackknife that goes with a bootstrap, at most
FEWEST = 5  # configurations below which there is no interval
ENDS = np.array([0.025, 0.975])
MORE = 1e-3  # by which a configuration counts more
_FAR = 1 - 1e-9  # where artanh is cut


@dataclass(frozen=True)
class Correlation:
    """A statistic with its interval, and the probability that chance takes one as far from zero.

    Args:
        value: the statistic.
        p: two-sided probability under "nothing but chance"; NaN where it is not known.
    """

    value: Value
    p: float


@dataclass(frozen=True)
class Resamples:
    """How often each configuration counts, in the table and in every resample.

    Args:
        counts: (1 + blocks + draws, units) float32: ones, then the jackknife's, then the bootstrap's.
        blocks: number of the jackknife's rows.
    """

    counts: NDArray[np.float32]
    blocks: int

    @property
    def units(self) -> int:
        """Number of configurations that are drawn."""
        return int(self.counts.shape[1])

    @staticmethod
    def of(units: int, draws: int = DRAWS, seed: int = 0) -> Resamples:
        """Draw configurations with replacement.

        Args:
            units: number of configurations, or of whatever else is drawn as a whole.
            draws: of the bootstrap.
            seed: of the draws.

        Returns:
            The counts.
        """
        blocks = min(units, BLOCKS)
        rng = np.random.default_rng(seed)
        block = np.arange(units) * blocks // units
        without = block[None] != np.arange(blocks)[:, None]
        drawn = rng.multinomial(units, np.full(units, 1 / units), draws)
        counts = np.concatenate([np.ones((1, units)), without, drawn]).astype(np.float32)
        return Resamples(counts, blocks)

    def value(self, numbers: Floats, n: int, *, pairs: int = 0, how: str = "") -> Value:
        """Give the statistic of the table its interval.

        Args:
            numbers: (1 + blocks + draws,) the statistic for each row of the counts, NaN where it does not exist.
            n: number of networks.
            pairs: disjoint pairs that are all in order where the statistic is 1 or −1: their share's exact interval
                stands for that of the bootstrap, which then has no width.
            how: particulars, for the value.

        Returns:
            The value with its 95% interval; not reliable without one, or where a tenth of the draws have no value.
        """
        value, drawn = float(numbers[0]), numbers[1 + self.blocks :]
        drawn = drawn[np.isfinite(drawn)]
        if self.units < FEWEST:
            return Value(value, n, None, how, reliable=False, note=f"fewer than {FEWEST} configurations")
        if pairs and abs(value) > _FAR:
            return Value(value, n, _in_order(value, pairs), how)
        if len(drawn) < 2 or drawn.min() == drawn.max():
            return Value(value, n, None, how, reliable=False, note="its spread over configurations is not known")
        low, high = np.quantile(drawn, self._levels(value, numbers[1 : 1 + self.blocks], drawn))
        many = len(drawn) >= 0.9 * (len(numbers) - 1 - self.blocks)
        note = "" if many else "in more than a tenth of the resamples it does not exist"
        return Value(value, n, (float(low), float(high)), how, reliable=many, note=note)

    def percentiles(self, numbers: Floats, n: int, *, how: str = "") -> Value:
        """Give the statistic of the table the bootstrap's plain percentiles, for what no jackknife describes.

        Args:
            numbers: (1 + blocks + draws,) the statistic for each row of the counts.
            n: number of networks.
            how: particulars, for the value.

        Returns:
            The value with its 95% interval.
        """
        drawn = numbers[1 + self.blocks :]
        drawn = drawn[np.isfinite(drawn)]
        if self.units < FEWEST or len(drawn) < 2:
            return Value(float(numbers[0]), n, None, how, reliable=False, note=f"fewer than {FEWEST} configurations")
        low, high = np.quantile(drawn, ENDS)
        return Value(float(numbers[0]), n, (float(low), float(high)), how)

    def chance(self, numbers: Floats, *, pairs: int = 0) -> float:
        """Compute the probability that chance takes a correlation as far from zero.

        Args:
            numbers: (1 + blocks + draws,) the statistic, from −1 to 1, for each row of the counts.
            pairs: disjoint pairs that are all in order where the statistic is 1 or −1.

        Returns:
            two-sided p; NaN with fewer than five configurations.
        """
        value = float(numbers[0])
        if self.units < FEWEST:
            return math.nan
        if pairs and abs(value) > _FAR:
            return min(1.0, 2.0 ** (1 - pairs))
        left = numbers[1 : 1 + self.blocks]
        left = np.arctanh(np.clip(left[np.isfinite(left)], -_FAR, _FAR))
        m = len(left)
        if m < FEWEST:
            return math.nan
        error = math.sqrt((m - 1) / m * float(((left - left.mean()) ** 2).sum()))
        return _student(_fisher(value), error, m - 1)

    def correlation(self, numbers: Floats, n: int, *, pairs: int = 0, how: str = "") -> Correlation:
        """Give a correlation its interval and its probability of chance.

        Args:
            numbers: see :meth:`chance`.
            n: number of networks.
            pairs: see :meth:`chance`.
            how: particulars, for the value.

        Returns:
            Both.
        """
        return Correlation(self.value(numbers, n, pairs=pairs, how=how), self.chance(numbers, pairs=pairs))

    @staticmethod
    def _levels(value: float, left: Floats, drawn: Floats) -> Floats:
        """The quantiles of the draws that are the interval's ends."""
        below = float((drawn < value).mean() + (drawn <= value).mean()) / 2
        rest = 1 / len(drawn)
        bias = float(special.ndtri(min(max(below, rest), 1 - rest)))
        left = left[np.isfinite(left)]
        away = left.mean() - left if len(left) else np.zeros(1)
        square = float((away**2).sum())
        speed = float((away**3).sum()) / (6 * square**1.5) if square > 0 else 0.0
        z = bias + special.ndtri(ENDS)
        bent = 1 - speed * z
        if (bent <= 0).any():
            return ENDS
        return np.asarray(special.ndtr(bias + z / bent))


@dataclass(frozen=True)
class Jackknife:
    """How often each configuration counts: once; each left out in turn; each a little more in turn.

    Args:
        counts: (1 + 2 units, units) float64.
    """

    counts: Floats

    @staticmethod
    def of(units: int) -> Jackknife:
        """Leave out every configuration in turn.

        Args:
            units: number of configurations.

        Returns:
            The counts.
        """
        one = np.eye(units)
        return Jackknife(np.concatenate([np.ones((1, units)), 1 - one, 1 + MORE * one]))

    def correlation(self, numbers: Floats, n: int, *, pairs: int, how: str = "") -> Correlation:
        """Give a mean of correlations its interval and its probability of chance, on Fisher's scale.

        Args:
            numbers: (1 + 2 units,) the statistic, from −1 to 1, for each row of the counts.
            n: number of networks.
            pairs: disjoint pairs that are all in order where the statistic is 1 or −1.
            how: particulars, for the value.

        Returns:
            The value with its 95% interval, and p.
        """
        units, value = self.counts.shape[1], float(numbers[0])
        if units < FEWEST:
            note = f"fewer than {FEWEST} configurations"
            return Correlation(Value(value, n, None, how, reliable=False, note=note), math.nan)
        if abs(value) > _FAR:
            return Correlation(Value(value, n, _in_order(value, pairs), how), min(1.0, 2.0 ** (1 - pairs)))
        left, more = numbers[1 : 1 + units], (numbers[1 + units :] - value) / MORE
        left = np.where(np.isfinite(left), left, value)
        out = (units - 1) / units * float(((left - left.mean()) ** 2).sum())
        small = units / (units - 1) * float(((more - more.mean()) ** 2).sum())
        error = math.sqrt((out + small) / 2) / (1 - value**2)
        half, z = margin(error, units - 1), _fisher(value)
        ends = (math.tanh(z - half), math.tanh(z + half))
        return Correlation(Value(value, n, ends, how), _student(z, error, units - 1))


def _fisher(value: float) -> float:
    return math.atanh(max(-_FAR, min(_FAR, value)))


def _student(z: float, error: float, df: int) -> float:
    """Two-sided probability of Student's t; without an error it is not known, unless the value is zero."""
    if error == 0:
        return 1.0 if z == 0 else math.nan
    return float(2 * special.stdtr(df, -abs(z) / error))


def _in_order(value: float, pairs: int) -> tuple[float, float]:
    """The interval of a correlation of ±1, from the exact one of the share of pairs in order when all are."""
    share = of_share(pairs, pairs).ends or (0.0, 1.0)
    low = 2 * share[0] - 1
    return (low, 1.0) if value > 0 else (-1.0, -low)
