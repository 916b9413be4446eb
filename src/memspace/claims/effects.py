"""Effects: estimates that give their interval at any level, and how sure they are to lie beyond a bound."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from scipy import stats

from memspace import intervals
from memspace.value import Absent, Value

__all__ = [
    "ANGLE",
    "PLAIN",
    "PORTION",
    "REDUCTION",
    "Effect",
    "LeastEffect",
    "Scale",
    "ShareEffect",
    "StudentEffect",
    "mean_of",
]


@dataclass(frozen=True)
class Scale:
    """A scale on which an effect's error is nearly the same everywhere.

    Args:
        name: in words.
        to: from the effect to the scale; bounds outside its range count as the range's ends.
        back: from the scale to the effect.
        slope: derivative of ``to`` at an effect.
    """

    name: str
    to: Callable[[float], float]
    back: Callable[[float], float]
    slope: Callable[[float], float]


def _angle(value: float) -> float:
    return math.asin(min(1.0, max(-1.0, value)))


def _from_angle(angle: float) -> float:
    return math.sin(min(math.pi / 2, max(-math.pi / 2, angle)))


PLAIN = Scale("plain", lambda v: v, lambda v: v, lambda v: 1.0)
# Of shares of pairs that units have in common: normal as they are, and nothing lies beyond 0 and 1.
PORTION = Scale("plain, from 0 to 1", lambda v: v, lambda v: min(1.0, max(0.0, v)), lambda v: 1.0)
# Of correlations and differences of two shares: their variance is near (1 − v²)/n.
ANGLE = Scale("angle", _angle, _from_angle, lambda v: 1 / math.sqrt(max(1e-12, 1 - v * v)))
# Of the share by which a positive number falls, 1 − a/b: on it the logarithm of the ratio, downwards.
REDUCTION = Scale(
    "logarithm of the ratio",
    lambda v: math.inf if v >= 1 else -math.log1p(-v),
    lambda u: -math.expm1(-u),
    lambda v: 1 / max(1e-12, 1 - v),
)


class Effect(ABC):
    """An estimated effect.

    Attributes:
        value: the estimate.
        n: independent units behind it.
        note: what a reader of the number should know.
    """

    value: float
    n: int
    note: str

    @abstractmethod
    def ends(self, level: float = intervals.LEVEL) -> tuple[float, float] | None:
        """Compute the interval.

        Args:
            level: how often it holds the true effect, at least.

        Returns:
            Its ends; None where the sample carries none.
        """

    @abstractmethod
    def not_above(self, bound: float) -> float:
        """Compute the p-value of "the effect is at most the bound".

        Args:
            bound: in the effect's unit.

        Returns:
            One-sided: at most 0.025 where the whole 95% interval lies above.
        """

    @abstractmethod
    def not_below(self, bound: float) -> float:
        """Compute the p-value of "the effect is at least the bound".

        Args:
            bound: in the effect's unit.

        Returns:
            One-sided.
        """

    def stated(self) -> Value:
        """Give the estimate with its 95% interval.

        Returns:
            Not reliable where there is no interval.
        """
        ends = self.ends()
        return Value(self.value, self.n, ends, reliable=ends is not None, note=self.note)


@dataclass(frozen=True)
class StudentEffect(Effect):
    """An estimate with a standard error, by Student's t on a scale of its own.

    Args:
        value: the estimate.
        error: its standard error, on the scale.
        df: degrees of freedom of the error: independent units − 1.
        n: independent units.
        scale: on which the estimate is taken as normal.
        note: see :class:`Effect`.
    """

    value: float
    error: float
    df: float
    n: int
    scale: Scale = PLAIN
    note: str = ""

    @property
    def _known(self) -> bool:
        """Whether there is an error to speak of: a spread of zero says that the sample is too small to show one."""
        return math.isfinite(self.value) and math.isfinite(self.error) and self.error > 0 and self.df > 0

    def ends(self, level: float = intervals.LEVEL) -> tuple[float, float] | None:
        """Compute the interval by Student's t on the scale."""
        if not self._known:
            return None
        centre, half = self.scale.to(self.value), float(intervals.margin(self.error, self.df, level))
        return self.scale.back(centre - half), self.scale.back(centre + half)

    def not_above(self, bound: float) -> float:
        """Compute the p-value by Student's t on the scale."""
        return float(stats.t.sf(self._distance(bound), self.df)) if self._known else 1.0

    def not_below(self, bound: float) -> float:
        """Compute the p-value by Student's t on the scale."""
        return float(stats.t.cdf(self._distance(bound), self.df)) if self._known else 1.0

    def _distance(self, bound: float) -> float:
        return (self.scale.to(self.value) - self.scale.to(bound)) / self.error


@dataclass(frozen=True)
class ShareEffect(Effect):
    """A share of independent tries, by the exact binomial law (Clopper & Pearson 1934).

    Args:
        hits: how many came out.
        n: how many there were.
        note: see :class:`Effect`.
    """

    hits: int
    n: int
    note: str = ""

    @property
    def value(self) -> float:  # type: ignore[override]  # computed where others store it
        """The share."""
        return self.hits / self.n if self.n else math.nan

    def ends(self, level: float = intervals.LEVEL) -> tuple[float, float] | None:
        """Compute the Clopper–Pearson interval."""
        if self.n == 0:
            return None
        low, high = stats.binomtest(self.hits, self.n).proportion_ci(level)
        return float(low), float(high)

    def not_above(self, bound: float) -> float:
        """Compute the exact binomial p-value; no share is below 0."""
        if self.n == 0 or bound < 0:
            return float(self.n == 0)
        return float(stats.binom.sf(self.hits - 1, self.n, min(1.0, bound)))

    def not_below(self, bound: float) -> float:
        """Compute the exact binomial p-value; no share is above 1."""
        if self.n == 0 or bound > 1:
            return float(self.n == 0)
        return float(stats.binom.cdf(self.hits, self.n, max(0.0, bound)))


@dataclass(frozen=True)
class LeastEffect(Effect):
    """The least of several effects: above a bound only where every one is.

    Its lower end is the least of theirs, since whichever is truly least lies above its own (an intersection–union
    test, which needs no correction). Its upper end is the least of theirs at a level that holds for all at once.

    Args:
        parts: the effects by name.
        note: see :class:`Effect`.
    """

    parts: Mapping[str, Effect]
    note: str = ""

    @property
    def least(self) -> str:
        """The name of the least effect."""
        return min(self.parts, key=lambda name: self.parts[name].value)

    @property
    def value(self) -> float:  # type: ignore[override]  # computed where others store it
        """The least value."""
        return self.parts[self.least].value

    @property
    def n(self) -> int:  # type: ignore[override]  # computed where others store it
        """The fewest units behind any of them."""
        return min(part.n for part in self.parts.values())

    def ends(self, level: float = intervals.LEVEL) -> tuple[float, float] | None:
        """Compute the interval from those of the parts."""
        joint = 1 - (1 - level) / len(self.parts)
        lower, upper = ([part.ends(at) for part in self.parts.values()] for at in (level, joint))
        if any(e is None for e in lower):
            return None
        return min(e[0] for e in lower if e), min(e[1] for e in upper if e)

    def not_above(self, bound: float) -> float:
        """Compute the p-value of the part that is least sure to lie above."""
        return max(part.not_above(bound) for part in self.parts.values())

    def not_below(self, bound: float) -> float:
        """Compute the p-value of the part that is surest to lie below, corrected for their number."""
        return min(1.0, len(self.parts) * min(part.not_below(bound) for part in self.parts.values()))


def mean_of(effects: Sequence[Effect | Absent]) -> Effect | Absent:
    """Average effects of separate groups of units, each counted alike: the groups are those of interest, not a sample.

    Shares are added up instead, try by try; of least effects the parts are averaged. Where some are shares and others
    are not, a share has the spread of its posterior under Jeffreys' prior, which is not zero where all tries came out.

    Args:
        effects: of one kind; absent ones are left out.

    Returns:
        The mean, its error from theirs with Satterthwaite's degrees of freedom; absent where all are.
    """
    present = [e for e in effects if not isinstance(e, Absent)]
    if not present:
        return next((e for e in effects if isinstance(e, Absent)), Absent("there are no networks"))
    left = len(effects) - len(present)
    note = f"without {left} of {len(effects)} families, where it could not be measured" if left else ""
    shares = [e for e in present if isinstance(e, ShareEffect)]
    if len(shares) == len(present):
        return ShareEffect(sum(e.hits for e in shares), sum(e.n for e in shares), note)
    least = [e for e in present if isinstance(e, LeastEffect)]
    if least:
        names = [name for name in least[0].parts if all(name in e.parts for e in least)]
        parts = {name: mean_of([e.parts[name] for e in least]) for name in names}
        return LeastEffect({k: p for k, p in parts.items() if not isinstance(p, Absent)}, note)
    students = [_student_of(e) if isinstance(e, ShareEffect) else e for e in present]
    return _mean_of_students([e for e in students if isinstance(e, StudentEffect)], note)


def _student_of(share: ShareEffect) -> StudentEffect:
    """A share as an estimate with an error, for a mean with estimates that have one."""
    spread = float(stats.beta.std(share.hits + 0.5, share.n - share.hits + 0.5))
    return StudentEffect(share.value, spread, share.n - 1, share.n, PORTION)


def _mean_of_students(effects: Sequence[StudentEffect], note: str) -> StudentEffect:
    k, scale = len(effects), effects[0].scale
    value = math.fsum(e.value for e in effects) / k
    variances = [(e.error / scale.slope(e.value) / k) ** 2 for e in effects]
    total = math.fsum(variances)
    terms = math.fsum(v * v / max(e.df, 1e-9) for v, e in zip(variances, effects, strict=True))
    unknown = any(e.ends() is None for e in effects)
    df = total**2 / terms if terms > 0 else math.nan
    error = math.nan if unknown else math.sqrt(total) * scale.slope(value)
    return StudentEffect(value, error, df, sum(e.n for e in effects), scale, note)
