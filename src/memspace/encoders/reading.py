"""One number of an encoder with its null, as a row of the store."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from memspace.value import Absent, Value

__all__ = ["EncoderReading"]


@dataclass(frozen=True)
class EncoderReading:
    """One number of an encoder.

    Args:
        name: of the number.
        unit: of it; ``"1"`` for a pure number.
        value: with its interval, or why there is none.
        null: what chance gives, with its interval; None where nothing is compared.
        chance: probability of so large a number by chance; NaN where nothing is compared.
    """

    name: str
    unit: str
    value: Value | Absent
    null: Value | None = None
    chance: float = math.nan

    def row(self) -> dict[str, Any]:
        """Make a row of the table.

        Returns:
            Columns by name: ``name``, ``unit``, ``value``, ``low``, ``high``, ``n``, ``reliable``, ``note``, ``null``,
            ``null_low``, ``null_high``, ``chance``; None where a number is absent or not finite.
        """
        null_low, null_high = (self.null.interval if self.null is not None else None) or (math.nan, math.nan)
        if isinstance(self.value, Absent):
            value, low, high, n, reliable, note = math.nan, math.nan, math.nan, 0, False, self.value.reason
        else:
            low, high = self.value.interval or (math.nan, math.nan)
            value, n, reliable, note = self.value.value, self.value.n, self.value.reliable, self.value.note
        row = {
            "name": self.name,
            "unit": self.unit,
            "value": value,
            "low": low,
            "high": high,
            "n": n,
            "reliable": reliable,
            "note": note,
            "null": math.nan if self.null is None else self.null.value,
            "null_low": null_low,
            "null_high": null_high,
            "chance": self.chance,
        }
        return {k: None if isinstance(v, float) and not math.isfinite(v) else v for k, v in row.items()}
