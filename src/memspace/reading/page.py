"""A page on one reading of a network: a chapter or several in the template of every page."""

from __future__ import annotations

import datetime
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from memspace.auditing.results import Chapter, Results
from memspace.auditing.store import write_text
from memspace.report.html import Page, render
from memspace.task.task import Task
from memspace.version import VERSION

__all__ = ["page_results", "write_page"]


def page_results(
    task: Task,
    chapters: Chapter | tuple[Chapter, ...],
    settings: Mapping[str, Any],
    tables: Mapping[str, Mapping[str, Sequence[Any]]],
) -> Results:
    """Put chapters and their tables together.

    Args:
        task: the network and its data.
        chapters: the reading; the answer of the first one leads the page.
        settings: what reproduces it.
        tables: name → {column: sequence}.

    Returns:
        the results.
    """
    facts = {
        "model": type(task.model).__name__,
        "parameters": f"{sum(p.numel() for p in task.model.parameters()):,}",
        "training examples": f"{len(task.train):,}",
    }
    created = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    every = chapters if isinstance(chapters, tuple) else (chapters,)
    costs = {chapter.id: chapter.seconds for chapter in every}
    return Results(
        task.name, created, VERSION, facts | dict(task.description), settings, "", every, costs, dict(tables)
    )


def write_page(results: Results, heading: str, command: str, path: str | Path) -> None:
    """Write results as an HTML page.

    Args:
        results: what is shown.
        heading: of the page, after the task's name.
        command: the call that made them.
        path: the file.

    Raises:
        OutputError: the file cannot be written.
    """
    chapter = results.chapters[0]
    kind = Page(chapter.title.lower(), f", {heading}", "read", (), lead=lambda _: chapter.answer, downloads=True)
    results = Results(**{**results.__dict__, "settings": {**results.settings, "command": command}})
    write_text(Path(path), render(results, kind))
