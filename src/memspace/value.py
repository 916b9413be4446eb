"""A number with its error, before it has a name: what measures return."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, TypeVar

from memspace import intervals

__all__ = ["Absent", "Value", "present"]

T = TypeVar("T")


@dataclass(frozen=True)
class Absent:
    """Why there is no value. Without a reason it does not apply here, and nothing is said about it.

    Args:
        reason: why, as a clause: ``"no test data were given"``.
        remedy: what would make it measurable, as an instruction.
    """

    reason: str = ""
    remedy: str = ""


def present(value: T | Absent) -> T | None:
    """Return a value, or None where it is absent.

    Args:
        value: the value, or why there is none.

    Returns:
        the value or None.
    """
    return None if isinstance(value, Absent) else value


@dataclass(frozen=True)
class Value:
    """A number with its error.

    Args:
        value: the number.
        n: how many examples (or samples) it was computed from.
        interval: 95% interval ``(low, high)``, or None where the value is exact for the data given.
        how: particulars of this computation, added to the declared estimator.
        reliable: False where the estimator's own diagnostics say that the number should not be trusted.
        note: one sentence of context, for example why it is unreliable.
        per: what the declared unit is counted per, for example ``"position"``: nats become nats per position.
    """

    value: float
    n: int
    interval: tuple[float, float] | None = None
    how: str = ""
    reliable: bool = True
    note: str = ""
    per: str = ""

    @staticmethod
    def mean(
        samples: Any, *, lower: float = -math.inf, upper: float = math.inf, groups: Any = None, **words: Any
    ) -> Value:
        """Return the mean of independent samples with a 95% interval that allows for skewness.

        Args:
            samples: any sequence of floats; with fewer than two there is no interval and the value is unreliable.
            lower: a bound that every sample keeps, 0 for losses and divergences: the interval keeps it too.
            upper: likewise from above.
            groups: what was drawn independently, one label a sample, where samples come in groups.
            words: ``how``, ``note``, ``per`` of the value.

        Returns:
            the mean, in the samples' unit; not reliable where the sample is too small for its tail.
        """
        numbers = intervals.floats(samples)
        value = math.fsum(numbers) / len(numbers) if len(numbers) else math.nan
        interval = intervals.of_mean(numbers, groups=groups, lower=lower, upper=upper)
        return _doubted(value, len(numbers), interval, words)

    @staticmethod
    def share(right: Any, *, n: int | None = None, groups: Any = None, **words: Any) -> Value:
        """Return a share with a 95% interval that is never [1, 1] (Clopper & Pearson 1934).

        Args:
            right: (n,) of 0 and 1 (or each sequence's share of right positions); or, with ``n``, how many were right.
            n: how many there are, where ``right`` is a count.
            groups: what was drawn independently, one label a sample: the sequence a position belongs to.
            words: ``how``, ``note``, ``per`` of the value.

        Returns:
            the share, from 0 to 1.
        """
        if n is not None:
            return _doubted(right / n if n else math.nan, n, intervals.of_share(right, n), words)
        hits = intervals.floats(right)
        value = float(hits.mean()) if len(hits) else math.nan
        whole = groups is None and all(h in (0.0, 1.0) for h in hits)
        interval = (
            intervals.of_share(float(hits.sum()), len(hits)) if whole else intervals.of_grouped_share(hits, groups)
        )
        return _doubted(value, len(hits), interval, words)

    @staticmethod
    def change(before: Any, after: Any, *, groups: Any = None, **words: Any) -> Value:
        """Return mean(after) − mean(before) of 0 and 1 on the same examples; its interval is never [0, 0].

        Args:
            before: (n,) of 0 and 1, or each sequence's share of right positions.
            after: (n,) likewise, in the same order.
            groups: what was drawn independently, one label an entry, where entries come in groups.
            words: ``how``, ``note``, ``per`` of the value.

        Returns:
            the change, from −1 to 1.
        """
        first, second = intervals.floats(before), intervals.floats(after)
        value = float(second.mean() - first.mean()) if len(first) else math.nan
        return _doubted(value, len(first), intervals.of_change(first, second, groups=groups), words)

    @staticmethod
    def ratio(above: Any, below: Any, **words: Any) -> Value:
        """Return mean(above) / mean(below), measured on the same samples, with Fieller's interval.

        Args:
            above: (n,) samples of the numerator.
            below: (n,) samples of the denominator.
            words: ``how``, ``note``, ``per`` of the value.

        Returns:
            the ratio, a pure number.
        """
        top, bottom = intervals.floats(above), intervals.floats(below)
        value = float(top.mean() / bottom.mean()) if len(top) and bottom.mean() != 0 else math.nan
        return _doubted(value, len(top), intervals.of_ratio(top, bottom), words)

    @staticmethod
    def with_error(
        value: float,
        error: float,
        n: int,
        *,
        df: float | None = None,
        lower: float = -math.inf,
        upper: float = math.inf,
        reliable: bool = True,
        **words: Any,
    ) -> Value:
        """Return a value with the interval of its standard error.

        Args:
            value: the number.
            error: its standard error.
            n: how many examples (or samples) it was computed from.
            df: degrees of freedom behind the error (draws − 1), None for many.
            lower: bound that the interval keeps.
            upper: likewise from above.
            reliable: False where the estimator's own diagnostics say that the number should not be trusted.
            words: ``how``, ``note``, ``per`` of the value.

        Returns:
            the value; not reliable and without an interval where the error is not finite.
        """
        ends = intervals.around(value, error, df, lower=lower, upper=upper)
        if all(math.isfinite(e) for e in ends):
            return Value(value, n, ends, reliable=reliable, **words)
        note = words.pop("note", "") or "its error is not known"
        return Value(value, n, None, reliable=False, note=note, **words)


def _doubted(value: float, n: int, found: intervals.Interval, words: dict[str, Any]) -> Value:
    """A value whose interval may say of itself that it does not hold."""
    note = "; ".join(part for part in (found.doubt, words.pop("note", "")) if part)
    return Value(value, n, found.ends, reliable=not found.doubt, note=note, **words)
