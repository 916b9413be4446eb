"""What a measure returns: a number with its unit, its error and where it comes from, or the reason it is absent."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from memspace import intervals
from memspace.arguments import check_fields
from memspace.bibliography import cite
from memspace.display import Shown
from memspace.errors import SettingsError
from memspace.format import format_interval, format_value
from memspace.value import Value

__all__ = [
    "Measurement",
    "Unmeasured",
    "from_change",
    "from_error",
    "from_samples",
    "from_share",
    "stated",
]


@dataclass(frozen=True)
class Measurement(Shown):
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
        better: ``"larger"``, ``"smaller"``, or empty where neither is better.
        shown: how a person reads it: ``"number"``, ``"share"`` (a percentage) or ``"ratio"``.
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
    better: str = ""
    shown: str = "number"

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

    def cells(self) -> tuple[str, str, str, str, str]:
        """Give name, value, 95% interval, unit and what speaks against it, as people read them.

        Returns:
            Five strings.
        """
        interval = "" if self.interval is None else format_interval(self)
        remark = "" if self.reliable else "not reliable"
        return self.name, format_value(self), interval, "" if self.unit == "1" else self.unit, remark

    def record(self) -> dict[str, Any]:
        """Give plain values, for a data frame.

        Returns:
            Values by column.
        """
        low, high = self.interval or (math.nan, math.nan)
        return {
            "name": self.name,
            "value": self.value,
            "low": low,
            "high": high,
            "unit": self.unit,
            "estimator": self.estimator,
            "n": self.n,
            "reliable": self.reliable,
            "note": self.note,
        }

    def _quantities(self) -> tuple[Measurement]:
        return (self,)

    def to_dict(self) -> dict[str, Any]:
        """Give plain JSON types; NaN and infinities become None with the reason in ``note``.

        Returns:
            The fields, and the source as a citation.
        """
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
            "better": self.better,
            "shown": self.shown,
        }

    @staticmethod
    def from_dict(d: dict[str, Any]) -> Measurement:
        """Invert :meth:`to_dict`.

        Args:
            d: what it gave.

        Returns:
            The measurement.
        """
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
            better=d.get("better", ""),
            shown=d.get("shown", "number"),
        )


@dataclass(frozen=True)
class Unmeasured(Shown):
    """A quantity that was not measured: never a zero, always a reason and what would make it measurable.

    Args:
        name: of the quantity.
        reason: why there is no value.
        remedy: what would make it measurable.
    """

    name: str
    reason: str
    remedy: str

    def cells(self) -> tuple[str, str, str, str, str]:
        """Give the name and why there is no value.

        Returns:
            Five strings.
        """
        return self.name, "–", "", "", f"not measured: {self.reason}; {self.remedy}"

    def record(self) -> dict[str, Any]:
        """Give plain values, for a data frame.

        Returns:
            Values by column.
        """
        return {
            "name": self.name,
            "value": math.nan,
            "low": math.nan,
            "high": math.nan,
            "unit": "",
            "estimator": "",
            "n": 0,
            "reliable": False,
            "note": f"{self.reason}; {self.remedy}",
        }

    def _quantities(self) -> tuple[Unmeasured]:
        return (self,)

    def to_dict(self) -> dict[str, str]:
        """Give plain JSON types.

        Returns:
            The fields.
        """
        return {"name": self.name, "reason": self.reason, "remedy": self.remedy}


def stated(name: str, value: Value, unit: str, estimator: str, source: str = "") -> Measurement:
    """Give a value its name, unit, estimator and source.

    Args:
        name: see :class:`Measurement`.
        value: the number with its error; what it says of ``how`` and ``per`` is added to estimator and unit.
        unit: see :class:`Measurement`.
        estimator: see :class:`Measurement`.
        source: see :class:`Measurement`.

    Returns:
        the measurement.
    """
    how = f"{estimator}{'; ' if value.how else ''}{value.how}"
    unit = f"{unit} per {value.per}" if value.per else unit
    return Measurement(name, value.value, unit, how, value.n, value.interval, source, value.reliable, value.note)


def from_samples(
    name: str, samples: Any, unit: str, estimator: str, *, source: str = "", **options: Any
) -> Measurement:
    """Return :meth:`Value.mean` of samples as a measurement.

    Args:
        name: see :class:`Measurement`.
        samples: any sequence of floats.
        unit: see :class:`Measurement`.
        estimator: see :class:`Measurement`.
        source: see :class:`Measurement`.
        options: of :meth:`Value.mean`.

    Returns:
        the mean with its 95% interval.
    """
    return stated(name, Value.mean(samples, **options), unit, estimator, source)


def from_share(
    name: str, right: Any, estimator: str, *, unit: str = "1", source: str = "", **options: Any
) -> Measurement:
    """Return :meth:`Value.share` as a measurement.

    Args:
        name: see :class:`Measurement`.
        right: (n,) of 0 and 1; or, with ``n``, how many were right.
        estimator: see :class:`Measurement`.
        unit: see :class:`Measurement`.
        source: see :class:`Measurement`.
        options: of :meth:`Value.share`.

    Returns:
        the share with its 95% interval.
    """
    return stated(name, Value.share(right, **options), unit, estimator, source)


def from_change(name: str, before: Any, after: Any, estimator: str, *, source: str = "", **options: Any) -> Measurement:
    """Return :meth:`Value.change` as a measurement.

    Args:
        name: see :class:`Measurement`.
        before: (n,) of 0 and 1, or each sequence's share of right positions.
        after: (n,) likewise, in the same order.
        estimator: see :class:`Measurement`.
        source: see :class:`Measurement`.
        options: of :meth:`Value.change`.

    Returns:
        the change with its 95% interval.
    """
    return stated(name, Value.change(before, after, **options), "1", estimator, source)


def from_error(
    name: str, value: float, error: float, unit: str, estimator: str, n: int, *, source: str = "", **options: Any
) -> Measurement:
    """Return :meth:`Value.with_error` as a measurement.

    Args:
        name: see :class:`Measurement`.
        value: the number.
        error: its standard error.
        unit: see :class:`Measurement`.
        estimator: see :class:`Measurement`.
        n: how many examples it was computed from.
        source: see :class:`Measurement`.
        options: of :meth:`Value.with_error`.

    Returns:
        the value with its 95% interval.
    """
    return stated(name, Value.with_error(value, error, n, **options), unit, estimator, source)
