"""What a measure returns: a number with its unit, its error and where it comes from, or the reason it is absent."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from memspace import intervals
from memspace.arguments import check_fields
from memspace.bibliography import cite
from memspace.errors import SettingsError

__all__ = ["Measurement", "Unmeasured", "from_change", "from_error", "from_ratio", "from_samples", "from_share"]


@dataclass(frozen=True)
class Measurement:
    """A measured quantity.

    Args:
        name: dotted and unique within a chapter, for example ``"fisher.trace"``.
        value: the number.
        unit: for example ``"nats"``, ``"bits"``, ``"1"`` for a pure number.
        estimator: how it was computed, for example ``"exact, dual Gram matrix"``.
        n: how many examples (or samples) it was computed from.
        interval: 95% interval ``(low, high)``, or None where the value is exact for the data given.
        source: where it is defined: keys of :mod:`memspace.bibliography`, for example ``"liang2019 [eq. 8]"``; other
            text is shown as it is.
        reliable: False where the estimator's own diagnostics say that the number should not be trusted.
        note: one sentence of context, for example why it is unreliable.
    """

    name: str
    value: float
    unit: str
    estimator: str
    n: int
    interval: tuple[float, float] | None = None
    source: str = ""
    reliable: bool = True
    note: str = ""

    def __post_init__(self) -> None:
        check_fields(self, besides=("value", "interval"))
        try:
            object.__setattr__(self, "value", float(self.value))  # a count reads the same once stored
            if self.interval is not None:
                low, high = self.interval
                object.__setattr__(self, "interval", (float(low), float(high)))
        except (TypeError, ValueError, RuntimeError, OverflowError) as error:
            what = f"a measurement has a number and an interval of two or None: {self!r}"[:300]
            raise SettingsError(what, where="memspace.Measurement", remedy="give numbers") from error
        if not self.name or not self.unit or not self.estimator:
            what = f"a measurement needs a name, a unit and an estimator: {self!r}"[:300]
            raise SettingsError(what, where="memspace.Measurement", remedy="give words for these")

    @property
    def standard_error(self) -> float | None:
        """A quarter of the width of the 95% interval (normal approximation), or None where exact."""
        return None if self.interval is None else (self.interval[1] - self.interval[0]) / (2 * intervals.margin(1.0))

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON types; NaN and infinities become None with the reason in ``note``."""
        finite = math.isfinite(self.value)
        return {
            "name": self.name,
            "value": self.value if finite else None,
            "unit": self.unit,
            "interval": list(self.interval) if self.interval is not None else None,
            "estimator": self.estimator,
            "n": self.n,
            "source": self.source,
            "citation": cite(self.source),
            "reliable": self.reliable and finite,
            "note": self.note if finite else (self.note or f"the estimate came out as {self.value}"),
        }

    @staticmethod
    def from_dict(d: dict[str, Any]) -> Measurement:
        """Inverse of :meth:`to_dict`."""
        interval = d.get("interval")
        return Measurement(
            name=d["name"],
            value=math.nan if d["value"] is None else float(d["value"]),
            unit=d["unit"],
            estimator=d["estimator"],
            n=int(d["n"]),
            interval=None if interval is None else (float(interval[0]), float(interval[1])),
            source=d.get("source", ""),
            reliable=bool(d.get("reliable", True)),
            note=d.get("note", ""),
        )


@dataclass(frozen=True)
class Unmeasured:
    """A quantity that was not measured: never a zero, always a reason and what would make it measurable."""

    name: str
    reason: str
    remedy: str

    def to_dict(self) -> dict[str, str]:
        """Plain JSON types."""
        return {"name": self.name, "reason": self.reason, "remedy": self.remedy}


def from_samples(
    name: str,
    samples: Any,
    unit: str,
    estimator: str,
    *,
    lower: float = -math.inf,
    upper: float = math.inf,
    groups: Any = None,
    source: str = "",
    note: str = "",
) -> Measurement:
    """The mean of independent samples with a 95% interval that allows for skewness (:func:`intervals.of_mean`).

    Args:
        name, unit, estimator, source, note: as in :class:`Measurement`.
        samples: any sequence of floats; with fewer than two there is no interval and the value is unreliable.
        lower, upper: bounds that every sample keeps, ``lower=0`` for losses and divergences: the interval keeps them,
            and a sample too small for its tail is marked not reliable.
        groups: what was drawn independently, one label a sample, where samples come in groups.

    For samples of 0 and 1 use :func:`from_share`, for their paired changes :func:`from_change`.
    """
    values = intervals.floats(samples)
    mean = math.fsum(values) / len(values) if len(values) else math.nan
    found = intervals.of_mean(values, groups=groups, lower=lower, upper=upper)
    return _made(name, mean, unit, estimator, len(values), found, source, note)


def from_share(
    name: str,
    right: Any,
    estimator: str,
    *,
    n: int | None = None,
    groups: Any = None,
    unit: str = "1",
    source: str = "",
    note: str = "",
) -> Measurement:
    """A share with a 95% interval that is never [1, 1] (Clopper & Pearson 1934).

    Args:
        right: (n,) of 0 and 1 (or each sequence's share of right positions); or, with ``n``, how many were right.
        groups: what was drawn independently, one label a sample: the sequence a position belongs to.
    """
    if n is not None:
        value, found = (right / n if n else math.nan), intervals.of_share(right, n)
    else:
        hits = intervals.floats(right)
        n = len(hits)
        value = float(hits.mean()) if n else math.nan
        whole = groups is None and all(h in (0.0, 1.0) for h in hits)
        found = intervals.of_share(float(hits.sum()), n) if whole else intervals.of_grouped_share(hits, groups)
    return _made(name, value, unit, estimator, n, found, source, note)


def from_change(
    name: str,
    before: Any,
    after: Any,
    estimator: str,
    *,
    groups: Any = None,
    source: str = "",
    note: str = "",
) -> Measurement:
    """Mean(after) − mean(before) of 0 and 1 on the same examples; never [0, 0] (:func:`intervals.of_change`).

    Args:
        before, after: (n,) of 0 and 1, or each sequence's share of right positions.
        groups: what was drawn independently, one label an entry, where entries come in groups.
    """
    first, second = intervals.floats(before), intervals.floats(after)
    value = float(second.mean() - first.mean()) if len(first) else math.nan
    found = intervals.of_change(first, second, groups=groups)
    return _made(name, value, "1", estimator, len(first), found, source, note)


def from_ratio(
    name: str, above: Any, below: Any, unit: str, estimator: str, *, source: str = "", note: str = ""
) -> Measurement:
    """Mean(above) / mean(below), measured on the same samples, with Fieller's interval."""
    top, bottom = intervals.floats(above), intervals.floats(below)
    value = float(top.mean() / bottom.mean()) if len(top) and bottom.mean() != 0 else math.nan
    return _made(name, value, unit, estimator, len(top), intervals.of_ratio(top, bottom), source, note)


def from_error(
    name: str,
    value: float,
    error: float,
    unit: str,
    estimator: str,
    n: int,
    *,
    df: float | None = None,
    lower: float = -math.inf,
    upper: float = math.inf,
    source: str = "",
    reliable: bool = True,
    note: str = "",
) -> Measurement:
    """A value with its standard error; ``df``: degrees of freedom behind the error (draws − 1), None for many."""
    ends = intervals.around(value, error, df, lower=lower, upper=upper)
    if not all(math.isfinite(e) for e in ends):
        return Measurement(name, value, unit, estimator, n, None, source, False, note or "its error is not known")
    return Measurement(name, value, unit, estimator, n, ends, source, reliable, note)


def _made(
    name: str, value: float, unit: str, estimator: str, n: int, found: intervals.Interval, source: str, note: str
) -> Measurement:
    told = "; ".join(part for part in (found.doubt, note) if part)
    return Measurement(name, value, unit, estimator, n, found.ends, source, not found.doubt, told)
