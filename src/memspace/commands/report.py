"""``memspace report``: the page of a finished run, rendered again."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from memspace.commands.declaration import command
from memspace.commands.options import option, out
from memspace.report.terminal import Terminal

__all__ = ["report"]


@command()
def report(
    run: Annotated[Path, typer.Argument(help="Run folder holding results.json.")],
    out: Annotated[Path | None, out("HTML file.", "RUN/report.html")] = None,
    quiet: Annotated[bool, option("No summary.", "--quiet")] = False,
) -> None:
    """Render a finished run again from its stored results."""
    from memspace.auditing.store import load_results, write_text
    from memspace.passes.processes import current
    from memspace.report.html import render
    from memspace.report.text import summarise

    if current().rank > 0:  # one file, one writer
        return
    results = load_results(run)
    write_text(out if out is not None else run / "report.html", render(results))
    if not quiet:
        summarise(results, run if out is None else None, Terminal())
