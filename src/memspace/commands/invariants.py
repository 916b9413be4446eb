"""``memspace invariants``: what a network has that does not depend on how its weights describe it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from memspace.commands.declaration import command
from memspace.commands.opened import opened
from memspace.commands.options import FileOutput, PartOptions, option
from memspace.commands.output import tell
from memspace.report.terminal import styled

if TYPE_CHECKING:
    from rich.console import Console

    from memspace.verbs.invariants import Invariants

__all__ = ["invariants"]


@command()
def invariants(
    which: PartOptions,
    output: FileOutput,
    no_sampling: Annotated[
        bool, option("Leave out the learning coefficient and the loss's curvature.", "--no-sampling")
    ] = False,
    report: Annotated[Path | None, option("HTML page that shows it.")] = None,
) -> None:
    """Read rank, spectrum, volume and symmetries: what does not change when units are rescaled or exchanged."""
    from memspace.verbs.invariants import invariants as invariants_of

    with opened(which, output) as (task, progress):
        result = invariants_of(task, sampled=not no_sampling, seed=which.seed, page=report, progress=progress)
    tell(output, result.to_dict(), lambda console: _show(result, console))


def _show(result: Invariants, console: Console) -> None:
    from rich.table import Table

    from memspace.format import format_interval, format_value
    from memspace.report.measured import show_measured

    title = styled(f"{result.task}: on {result.numbers.words}")
    table = Table("quantity", "value", "95% interval", "unit", "unchanged by", title=title, title_justify="left")
    for m in result.measurements:
        value = format_value(m) if m.reliable else f"{format_value(m)} (not reliable)"
        unit = "" if m.unit == "1" else m.unit
        table.add_row(*map(styled, (m.name, value, format_interval(m), unit, result.numbers.unchanged[m.name])))
    console.print(table)
    if result.unmeasured:
        show_measured("", (), result.unmeasured, console)
