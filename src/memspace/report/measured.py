"""Measurements as one table in the terminal."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console
from rich.table import Table

from memspace.format import format_interval, format_value
from memspace.measurement import Measurement, Unmeasured
from memspace.report.terminal import styled

__all__ = ["show_measured"]


def show_measured(
    title: str, measurements: Sequence[Measurement], unmeasured: Sequence[Unmeasured], console: Console
) -> None:
    """Print value, interval and unit of measurements, and below them what is absent and why.

    Args:
        title: of the table.
        measurements: in order.
        unmeasured: what is absent.
        console: where it is printed.
    """
    table = Table("quantity", "value", "95% interval", "unit", title=styled(title), title_justify="left")
    for m in measurements:
        cells = (m.name, format_value(m), format_interval(m), "" if m.unit == "1" else m.unit)
        table.add_row(*map(styled, cells))
    console.print(table)
    for u in unmeasured:
        console.print(styled(f"{u.name} was not measured: {u.reason}; {u.remedy}."))
