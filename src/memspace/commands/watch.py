"""``memspace watch DIR``: what a recorded training tells about itself, in the terminal and on one page."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.table import Table

from memspace.commands.declaration import command
from memspace.commands.options import Output, out
from memspace.commands.output import tell, typed_command
from memspace.report.terminal import styled

if TYPE_CHECKING:
    from memspace.auditing.results import Results

__all__ = ["watch"]

SHOWN = 12  # probe evaluations printed
COLUMNS = (
    ("probe_loss", "loss, nats"),
    ("length", "length, nats^½"),
    ("action", "action"),
    ("excess", "excess, nats"),
    ("effective_dimension", "dimension"),
    ("leave_one_out_gap", "gap, nats"),
)


@command()
def watch(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="Folder that memspace.watch wrote.")],
    output: Output,
    out: Annotated[Path | None, out("Write a page there, for example report.html.")] = None,
) -> None:
    """Show a recorded training: length, action and live numbers along its steps."""
    from memspace.auditing.chapters.recording import recording_results
    from memspace.auditing.store import write_text
    from memspace.report.html import RECORDING, render
    from memspace.report.text import summarise
    from memspace.task.recording import load_recording

    results = recording_results(load_recording(folder), {"folder": str(folder), "command": typed_command()})
    if out is not None:
        write_text(out, render(results, RECORDING))

    def show(console: Console) -> None:
        console.print(_table(results))
        summarise(results, None, console)
        if out is not None:
            console.print(styled("Page: ", (str(out), "bold")), soft_wrap=True)

    tell(output, results.to_dict(), show)


def _table(results: Results) -> Table:
    """Some probe evaluations, the first and the last among them; blank where a number was not measured."""
    looks = results.tables["looks"]
    step = looks.get("step", [])
    columns = [(c, title) for c, title in COLUMNS if any(v is not None and v == v for v in looks.get(c, ()))]
    table = Table("step", *(title for _, title in columns))
    last = len(step) - 1
    for k in sorted({round(i * last / (SHOWN - 1)) for i in range(SHOWN)}) if step else []:
        values = [looks[c][k] for c, _ in columns]
        table.add_row(f"{step[k]:,.0f}", *("" if v is None or v != v else f"{v:.4g}" for v in values))
    return table
