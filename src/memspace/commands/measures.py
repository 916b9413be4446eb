"""``memspace measures``: what is measured, chapter by chapter, those of extensions among it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Table

from memspace.commands.declaration import command
from memspace.commands.options import Output
from memspace.commands.output import tell
from memspace.report.terminal import styled

if TYPE_CHECKING:
    from memspace.measures.declaration import MeasureDeclaration

__all__ = ["measures"]

COSTS = {True: "passes of its own", False: "none of its own"}


@command()
def measures(output: Output) -> None:
    """List the declared measures: unit, estimator, source, which direction is better, and what they cost."""
    from memspace.auditing.chapter import declared_chapters
    from memspace.auditing.chapters import PAGE_CHAPTERS
    from memspace.measures.declaration import declared_measures

    places = {chapter.id: place for place, chapter in enumerate((*declared_chapters(), *PAGE_CHAPTERS))}
    listed = sorted(declared_measures(), key=lambda m: (places.get(m.chapter, len(places)), m.chapter))
    tell(output, {"measures": [_content(m) for m in listed]}, lambda console: _show(listed, console))


def _content(m: MeasureDeclaration) -> dict[str, Any]:
    return {
        "name": m.name,
        "unit": m.unit,
        "chapter": m.chapter,
        "meaning": m.meaning,
        "estimator": m.estimator,
        "source": m.source,
        "better": m.better,
        "cost": COSTS[m.cost is not None],
    }


def _show(listed: list[MeasureDeclaration], console: Console) -> None:
    for chapter in dict.fromkeys(m.chapter for m in listed):
        table = Table(title=chapter, title_justify="left", box=None, pad_edge=False)
        for head in ("measure", "unit", "estimator", "source", "better", "passes"):
            table.add_column(head, no_wrap=head == "measure", overflow="fold")
        for m in (m for m in listed if m.chapter == chapter):
            unit = "" if m.unit == "1" else m.unit
            passes = "own" if m.cost is not None else ""
            table.add_row(*map(styled, (m.name, unit, m.estimator, m.source, m.better, passes)))
        console.print(table)
        console.print()
