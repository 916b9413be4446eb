"""The short summary in the terminal."""

from __future__ import annotations

from pathlib import Path

from rich.console import Console
from rich.table import Table

from memspace.auditing.results import Results
from memspace.report.terminal import styled

__all__ = ["summarise"]

_STYLE = {"bad": "bold red", "warn": "yellow", "good": "green", "note": "cyan"}
_SIGN = {"bad": "✗", "warn": "!", "good": "✓", "note": "·"}


def summarise(results: Results, folder: Path | None, console: Console) -> None:
    """Print one line per chapter, the findings that call for action, and the path of the report.

    Args:
        results: what is shown.
        folder: of the report; None: there is none.
        console: where it is printed.
    """
    grid = Table.grid(padding=(0, 2))
    for c in results.chapters:
        grid.add_row(styled((c.title, "bold")), styled(c.answer))
    console.print(grid)
    console.print()
    order = list(_STYLE)
    known = [f for c in results.chapters for f in c.findings if f.level in order]
    for f in sorted(known, key=lambda f: (not f.first, order.index(f.level))):
        act = f" {f.action}" if f.level in ("bad", "warn") else ""
        console.print(styled((_SIGN[f.level], _STYLE[f.level]), f" {f.title}.", (act, "dim")))
    total = results.costs.get("total")
    if total is not None:
        console.print(f"\nAudited in {total:.0f} s.", end=" " if folder else "\n")
    if folder is not None:
        console.print(styled("Report: ", (str(folder / "report.html"), "bold")), soft_wrap=True)
