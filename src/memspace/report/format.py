"""Numbers as people read them: digits shown follow the error."""

from __future__ import annotations

import math

from memspace.measurement import Measurement

__all__ = ["format_interval", "format_value", "plain", "said_time"]


def plain(value: float, digits: int = 3) -> str:
    """A number to ``digits`` significant digits, with thousands separators, without scientific notation nearby 1."""
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


def format_value(m: Measurement) -> str:
    """The value with as many digits as its error allows (two digits of the half-width), else three digits."""
    if m.interval is None or not math.isfinite(m.value):
        return plain(m.value, 3 if abs(m.value) < 1000 else 4)
    return plain(m.value, _digits(m.value, (m.interval[1] - m.interval[0]) / 2))


def format_interval(m: Measurement) -> str:
    """The 95% interval; a dash where the number has none."""
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
    """A duration as people say it."""
    for unit, size in (("h", 3600), ("min", 60)):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds:.0f} s" if seconds >= 1 else "a second"
