"""Numbers as people read them: digits shown follow the error."""

from __future__ import annotations

import math

from memspace.measurement import Measurement

__all__ = ["format_interval", "format_value", "plain"]


def plain(value: float, digits: int = 3) -> str:
    """A number to ``digits`` significant digits, with thousands separators, without scientific notation nearby 1."""
    if not math.isfinite(value):
        return "not a number"
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
    half = (m.interval[1] - m.interval[0]) / 2
    if half <= 0 or not math.isfinite(half) or m.value == 0:
        return plain(m.value)
    digits = 2 + math.floor(math.log10(max(abs(m.value), half))) - math.floor(math.log10(half))
    return plain(m.value, min(max(digits, 2), 6))


def format_interval(m: Measurement) -> str:
    """The 95% interval, or how exact the number is."""
    if m.interval is None:
        return "none"
    half = abs(m.interval[1] - m.interval[0]) / 2
    size = max(abs(m.interval[0]), abs(m.interval[1]))
    digits = (
        3 if half <= 0 or size == 0 else min(6, max(2, 2 + math.floor(math.log10(size)) - math.floor(math.log10(half))))
    )
    return f"{plain(m.interval[0], digits)} to {plain(m.interval[1], digits)}"
