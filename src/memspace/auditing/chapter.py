"""A chapter of an audit is a list: its measures in order, and functions that answer, find and draw."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from memspace.auditing.results import Chapter
from memspace.errors import SettingsError
from memspace.extensions import load_extensions
from memspace.measurement import Unmeasured
from memspace.measures.cost import Facts, Stage
from memspace.measures.declaration import TableDeclaration, declaration_of, declared_measures
from memspace.measures.workspace import Measured, Workspace, planned_stages
from memspace.value import Absent

__all__ = ["ChapterDeclaration", "declared_chapters", "make_chapter", "register_chapter", "stages_of_chapters"]

Part = Callable[..., Any]
Tables = dict[str, dict[str, Any]]


@dataclass(frozen=True)
class ChapterDeclaration:
    """A chapter as declared. All functions are passed the values that their parameters' annotations name.

    Args:
        id: for example ``"geometry"``.
        title: its heading.
        question: what it answers, in the words of a person.
        answer: returns the answer in a sentence or two.
        measures: declared measures in the order shown; those that name this chapter from elsewhere follow.
        tables: functions declared by ``@table``, each returning columns.
        findings: functions returning a finding, several, or None.
        figures: functions returning a figure, several, or None.
        galleries: functions returning a gallery, several, or None.
        notes: functions returning a note, several, or None.
    """

    id: str
    title: str
    question: str
    answer: Part
    measures: tuple[Part, ...] = ()
    tables: tuple[Part, ...] = ()
    findings: tuple[Part, ...] = ()
    figures: tuple[Part, ...] = ()
    galleries: tuple[Part, ...] = ()
    notes: tuple[Part, ...] = ()

    @property
    def all_measures(self) -> tuple[Part, ...]:
        """The chapter's own measures, then those that were declared for it elsewhere."""
        elsewhere = (d.function for d in declared_measures() if d.chapter == self.id)
        return (*self.measures, *(f for f in elsewhere if f not in self.measures))

    @property
    def functions(self) -> tuple[Part, ...]:
        """Every function of the chapter, in the order in which they run."""
        shown = (*self.findings, *self.figures, *self.galleries, *self.notes)
        return (*self.all_measures, *self.tables, self.answer, *shown)


_added: dict[str, ChapterDeclaration] = {}


def register_chapter(chapter: ChapterDeclaration) -> ChapterDeclaration:
    """Add a chapter to every audit, after the built-in ones.

    Args:
        chapter: with an id that no built-in chapter has.

    Returns:
        the chapter.

    Raises:
        SettingsError: the id is taken.
    """
    from memspace.auditing.chapters import CHAPTERS

    if any(c.id == chapter.id for c in CHAPTERS):
        what = f"a built-in chapter is called {chapter.id!r}"
        raise SettingsError(what, where="memspace.auditing.register_chapter", remedy="give it another id")
    _added[chapter.id] = chapter
    return chapter


def declared_chapters() -> tuple[ChapterDeclaration, ...]:
    """Return the chapters of an audit in order.

    Returns:
        the built-in chapters, then those of extensions.
    """
    from memspace.auditing.chapters import CHAPTERS

    load_extensions()
    return (*CHAPTERS, *_added.values())


def stages_of_chapters(facts: Facts) -> tuple[Stage, ...]:
    """Return the stages that the chapters run beyond the reading, each once.

    Args:
        facts: what the plan knows.

    Returns:
        the stages in order.
    """
    return planned_stages((f for chapter in declared_chapters() for f in chapter.functions), facts)


def make_chapter(declared: ChapterDeclaration, workspace: Workspace) -> tuple[Chapter, Tables]:
    """Measure, answer, find and draw.

    Args:
        declared: the chapter.
        workspace: the values of this audit.

    Returns:
        the chapter, and the columns it adds to tables.
    """
    begun = time.perf_counter()
    measurements, unmeasured = workspace.measure_all(declared.all_measures)
    why = {(u.reason, u.remedy) for u in unmeasured}
    if not measurements and len(why) == 1:  # a chapter that is absent as a whole says so once
        unmeasured = (Unmeasured(declared.id, *why.pop()),)
    measured = Measured(measurements)
    answer = workspace.call(declared.answer, declared.id, measured)
    if isinstance(answer, Absent):
        answer = f"Not measured: {answer.reason or 'it does not apply here'}."

    def parts(functions: tuple[Part, ...]) -> tuple[Any, ...]:
        return tuple(_parts(functions, declared.id, workspace, measured))

    chapter = Chapter(
        declared.id,
        declared.title,
        declared.question,
        answer,
        measurements,
        unmeasured,
        parts(declared.findings),
        parts(declared.figures),
        parts(declared.galleries),
        parts(declared.notes),
    )
    tables = _tables(declared, workspace, measured)
    return replace(chapter, seconds=time.perf_counter() - begun), tables


def _parts(functions: Iterable[Part], id: str, workspace: Workspace, measured: Measured) -> Iterable[Any]:
    """What the functions return; a part whose needs are absent is left out, the measures have said why."""
    for function in functions:
        part = workspace.call(function, id, measured)
        if part is None or isinstance(part, Absent):
            continue
        yield from part if isinstance(part, Sequence) and not isinstance(part, str) else (part,)


def _tables(declared: ChapterDeclaration, workspace: Workspace, measured: Measured) -> Tables:
    tables: Tables = {}
    for function in declared.tables:
        declaration = declaration_of(function)
        assert isinstance(declaration, TableDeclaration), function
        columns = workspace.call(function, declaration.name, measured)
        if isinstance(columns, Mapping):
            tables.setdefault(declaration.name, {}).update(columns)
    return tables
