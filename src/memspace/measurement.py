"""What a measure returns: a number with its unit, its error and where it comes from, or the reason it is absent."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

__all__ = ["Measurement", "Unmeasured", "from_samples"]


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
        source: paper and equation of the definition.
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
        object.__setattr__(self, "value", float(self.value))  # a count reads the same once stored
        if not self.name or not self.unit or not self.estimator:
            raise ValueError(f"a measurement needs a name, a unit and an estimator: {self!r}")

    @property
    def standard_error(self) -> float | None:
        """A quarter of the width of the 95% interval (normal approximation), or None where exact."""
        return None if self.interval is None else (self.interval[1] - self.interval[0]) / (2 * 1.96)

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
    name: str, samples: Any, unit: str, estimator: str, *, source: str = "", note: str = ""
) -> Measurement:
    """The mean of independent samples with a normal 95% interval from their standard error.

    Args:
        name, unit, estimator, source, note: as in :class:`Measurement`.
        samples: any sequence of floats; with fewer than two there is no interval and the value is unreliable.
    """
    values = [float(s) for s in samples]
    n = len(values)
    mean = math.fsum(values) / n if n else math.nan
    if n < 2:
        return Measurement(name, mean, unit, estimator, n, None, source, False, note or "fewer than two samples")
    half = 1.96 * math.sqrt(math.fsum((v - mean) ** 2 for v in values) / (n - 1) / n)
    return Measurement(name, mean, unit, estimator, n, (mean - half, mean + half), source, True, note)
