"""How often an experiment of a given size would support a claim that is true: the calculation behind a sample size."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated

from scipy import optimize, stats

from memspace.arguments import check_fields
from memspace.errors import SettingsError
from memspace.limits import PART, POSITIVE, SEVERAL, one_of

__all__ = ["KINDS", "SampleSize", "power_of", "units_for"]

AGREES = 0.005  # a stated power is one of two decimals
MOST = 100_000  # units


@dataclass(frozen=True)
class SampleSize:
    """The sample size of a claim and the power calculation behind it.

    Args:
        kind: what is estimated: ``mean``, ``share``, ``correlation`` or ``kendall``; see :func:`power_of`.
        units: independent units (pairs, configurations) in each family.
        effect: the true effect that is assumed, in the statistic's unit.
        power: chance that its interval then lies beyond the threshold, as it was calculated.
        sd: standard deviation of one unit; of a mean alone.

    Raises:
        SettingsError: a value is out of its range.
    """

    kind: str
    units: Annotated[int, SEVERAL]
    effect: float
    power: Annotated[float, PART]
    sd: Annotated[float, POSITIVE] = 1.0

    def __post_init__(self) -> None:
        check_fields(self)
        one_of(self.kind, KINDS, "kind")

    def check(self, threshold: float, alpha: float) -> None:
        """Compare the stated power with the calculation.

        Args:
            threshold: that the interval must pass.
            alpha: 1 − level of the interval.

        Raises:
            SettingsError: they differ.
        """
        computed = power_of(self, threshold, alpha)
        if abs(computed - self.power) > AGREES:
            raise SettingsError(
                f"{self.units} units have a power of {computed:.2f}, not {self.power:g} as stated",
                where="sample.power",
                remedy=f"state {computed:.2f}, or change units or effect",
            )


def power_of(sample: SampleSize, threshold: float, alpha: float = 0.05) -> float:
    """Compute the chance that the 1 − α interval of an estimate lies wholly beyond a threshold.

    - ``mean``: a mean of normal differences, by Student's t (noncentral t).
    - ``share``: a share of independent tries, by its exact interval.
    - ``correlation``: a correlation of normal pairs, by Fisher's transformation.
    - ``kendall``: Kendall's τ of normal pairs, with the variance of Esscher 1924. At τ = 0 it is
      2(2n + 5)/(9n(n − 1)).

    Args:
        sample: its kind, size and assumed effect, which may lie on either side of the threshold.
        threshold: in the effect's unit.
        alpha: both tails together.

    Returns:
        From 0 to 1.
    """
    side = 1.0 if sample.effect >= threshold else -1.0
    return _POWERS[sample.kind](sample, threshold, alpha, side)


def units_for(sample: SampleSize, threshold: float, alpha: float = 0.05) -> int:
    """Find by bisection the units that reach the sample's stated power.

    An exact share's power rises in steps: a somewhat smaller number may reach it too.

    Args:
        sample: kind, effect and power; its size is not used.
        threshold: in the effect's unit.
        alpha: both tails together.

    Returns:
        Units in each family.

    Raises:
        SettingsError: no number up to 100,000 does.
    """

    def lacking(units: int) -> bool:
        tried = SampleSize(sample.kind, units, sample.effect, sample.power, sample.sd)
        return power_of(tried, threshold, alpha) < sample.power

    low, high = 3, 4
    while lacking(high):
        low, high = high, 2 * high
        if high > MOST:
            raise SettingsError("no sample is large enough", where="sample", remedy="assume a larger effect")
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if lacking(middle) else (low, middle)
    return high


def _mean(sample: SampleSize, threshold: float, alpha: float, side: float) -> float:
    n = sample.units
    shift = side * (sample.effect - threshold) / sample.sd * math.sqrt(n)
    return float(stats.nct.sf(stats.t.ppf(1 - alpha / 2, n - 1), n - 1, shift))


def _share(sample: SampleSize, threshold: float, alpha: float, side: float) -> float:
    """Tries are added up over hits whose exact p-value is at most α/2."""
    n, p, bound = sample.units, sample.effect, threshold
    if side < 0:
        p, bound = 1 - p, 1 - bound
    least = int(stats.binom.isf(alpha / 2, n, bound)) + 1  # P(X ≥ least) ≤ α/2
    return float(stats.binom.sf(least - 1, n, p))


def _correlation(sample: SampleSize, threshold: float, alpha: float, side: float) -> float:
    shift = side * (math.atanh(_inside(sample.effect)) - math.atanh(_inside(threshold)))
    return float(stats.norm.sf(stats.norm.ppf(1 - alpha / 2) - shift * math.sqrt(max(1, sample.units - 3))))


def _kendall(sample: SampleSize, threshold: float, alpha: float, side: float) -> float:
    """The least τ that is decided is that from which the threshold is far enough away; then how often it is passed."""
    n, z = sample.units, float(stats.norm.ppf(1 - alpha / 2))

    def margin(tau: float) -> float:
        return side * (tau - threshold) - z * _sd_of_tau(n, tau)

    far = side * 0.999999
    if margin(far) < 0:
        return 0.0
    passed = optimize.brentq(margin, threshold, far)
    return float(stats.norm.sf(side * (passed - sample.effect) / _sd_of_tau(n, sample.effect)))


def _sd_of_tau(n: int, tau: float) -> float:
    """Standard deviation of Kendall's τ of n normal pairs whose true τ is given."""
    rho = math.sin(math.pi / 2 * _inside(tau))
    first = 1 - (2 / math.pi * math.asin(rho)) ** 2
    second = 1 / 9 - (2 / math.pi * math.asin(rho / 2)) ** 2
    return math.sqrt(2 / (n * (n - 1)) * (first + 2 * (n - 2) * second))


def _inside(correlation: float) -> float:
    return min(0.999999, max(-0.999999, correlation))


_POWERS: dict[str, Callable[[SampleSize, float, float, float], float]] = {
    "mean": _mean,
    "share": _share,
    "correlation": _correlation,
    "kendall": _kendall,
}
KINDS = tuple(_POWERS)
