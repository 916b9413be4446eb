"""The list of declared measures for the documentation: ``python -m memspace.auditing.measure_list``."""

from __future__ import annotations

from collections.abc import Iterable

from memspace.auditing.chapters import CHAPTERS, PAGE_CHAPTERS
from memspace.bibliography import cite
from memspace.measures.declaration import MeasureDeclaration, declaration_of, declared_measures

__all__ = ["as_markdown"]

HEAD = """# Measures

What an audit measures, chapter by chapter, as the code declares it; sources are listed in
[the references](references.md). `memspace measures` lists the same, with the measures of installed extensions.
Written by `python -m memspace.auditing.measure_list`.
"""
COLUMNS = ("measure", "meaning", "unit", "estimator", "better", "source")


def as_markdown() -> str:
    """Write the declared measures of the built-in chapters, then those that only other commands make.

    Returns:
        a page of tables, one a chapter.
    """
    parts, listed = [HEAD], set()
    for chapter in CHAPTERS:
        measures = [m for f in chapter.measures if isinstance(m := declaration_of(f), MeasureDeclaration)]
        listed |= {m.name for m in measures}
        parts.append(f"## {chapter.title}\n\n{chapter.question}\n\n{_table(measures)}")
    shipped = (m for m in declared_measures() if m.function.__module__.startswith("memspace."))
    others = [m for m in shipped if m.name not in listed]
    pages = dict.fromkeys(chapter.id for chapter in PAGE_CHAPTERS)  # not in the order in which modules were imported
    for id in (*pages, *dict.fromkeys(m.chapter for m in others if m.chapter not in pages)):
        measures = [m for m in others if m.chapter == id]
        if measures:
            parts.append(f"## Outside an audit: {id}\n\n{_table(measures)}")
    return "\n".join(parts)


def _table(measures: Iterable[MeasureDeclaration]) -> str:
    rows = [COLUMNS, tuple("---" for _ in COLUMNS), *map(_row, measures)]
    return "".join(f"| {' | '.join(row)} |\n" for row in rows)


def _row(m: MeasureDeclaration) -> tuple[str, ...]:
    cells = (f"`{m.name}`", m.meaning, "" if m.unit == "1" else m.unit, m.estimator, m.better, cite(m.source))
    return tuple(cell.replace("|", "\\|") for cell in cells)


if __name__ == "__main__":
    print(as_markdown(), end="")
