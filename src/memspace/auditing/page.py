"""Pages on something else than an audit: their chapters, made and put together."""

from __future__ import annotations

import datetime
import time
from collections.abc import Mapping, Sequence
from typing import Any

from memspace.auditing.chapter import ChapterDeclaration, Tables, make_chapter
from memspace.auditing.results import Chapter, Results
from memspace.measures.workspace import Workspace
from memspace.version import VERSION

__all__ = ["make_page"]


def make_page(
    name: str,
    declared: Sequence[ChapterDeclaration],
    workspace: Workspace,
    *,
    facts: Mapping[str, str],
    settings: Mapping[str, Any],
    plan: str = "",
    costs: Mapping[str, float] | None = None,
) -> Results:
    """Make the chapters of a page that is no audit.

    Args:
        name: heading of the page.
        declared: its chapters in order.
        workspace: the values that they need.
        facts: what is described, a line each.
        settings: what reproduces it.
        plan: what was planned, in words.
        costs: seconds by stage before; those of the page are added.

    Returns:
        the results, with the tables of all chapters.
    """
    began = time.perf_counter()
    chapters: list[Chapter] = []
    tables: Tables = {}
    for one in declared:
        chapter, columns = make_chapter(one, workspace)
        chapters.append(chapter)
        for table, added in columns.items():
            tables.setdefault(table, {}).update(added)
    spent = {**(costs or {}), "page": time.perf_counter() - began}
    created = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    return Results(name, created, VERSION, facts, settings, plan, tuple(chapters), spent, tables)
