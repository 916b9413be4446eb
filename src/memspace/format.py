"""Numbers as people read them: digits shown follow the error."""

from __future__ import annotations

import math
import re
from typing import Protocol

__all__ = ["format_interval", "format_value", "plain", "printable", "said_time"]

# Codes that move the cursor, clear the screen or turn text around; line ends and tabs stay.
_CONTROLS = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")


class _Measured(Protocol):
    """A number with its interval, as a measurement has them."""

    @property
    def value(self) -> float: ...
    @property
    def interval(self) -> tuple[float, float] | None: ...


def printable(text: str, *, one_line: bool = False) -> str:
    """Replace every control character by a mark.

    Args:
        text: any text, for example a name of a user.
        one_line: also put it on one line.

    Returns:
        the text, safe to show on a terminal.
    """
    return _CONTROLS.sub("\ufffd", " ".join(text.split()) if one_line else text)


def plain(value: float, digits: int = 3) -> str:
    """Write a number with thousands separators, without scientific notation nearby 1.

    Args:
        value: the number.
        digits: significant digits.

    Returns:
        the text.
    """
    if math.isnan(value):
        return "not a number"
    if math.isinf(value):
        return "∞" if value > 0 else "−∞"
    if value == 0:
        return "0"
    size = abs(value)
    if size >= 1e7 or size < 1e-4:
        return f"{value:.{digits - 1}e}"
    decimals = max(0, digits - 1 - math.floor(math.log10(size)))
    return f"{value:,.{decimals}f}"


def format_value(m: _Measured) -> str:
    """Write the value with as many digits as its error allows (two digits of the half-width), else three digits.

    Args:
        m: a measurement.

    Returns:
        the text, without the unit.
    """
    if m.interval is None or not math.isfinite(m.value):
        return plain(m.value, 3 if abs(m.value) < 1000 else 4)
    return plain(m.value, _digits(m.value, (m.interval[1] - m.interval[0]) / 2))


def format_interval(m: _Measured) -> str:
    """Write the 95% interval.

    Args:
        m: a measurement.

    Returns:
        its two ends; a dash where the number has none.
    """
    if m.interval is None:
        return "–"
    low, high = m.interval
    digits = _digits(max((v for v in m.interval if math.isfinite(v)), key=abs, default=0.0), (high - low) / 2)
    return f"{plain(low, digits)} to {plain(high, digits)}"


def _digits(value: float, half: float) -> int:
    """How many significant digits of a value an error of this half-width leaves meaningful: 2 to 6."""
    half = abs(half)
    if half == 0 or value == 0 or not math.isfinite(half):
        return 3
    return min(max(2 + math.floor(math.log10(max(abs(value), half))) - math.floor(math.log10(half)), 2), 6)


def said_time(seconds: float) -> str:
    """Write a duration as people say it.

    Args:
        seconds: the duration.

    Returns:
        hours, minutes or seconds, without a fraction.
    """
    for unit, size in (("h", 3600), ("min", 60)):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds:.0f} s" if seconds >= 1 else "a second"
