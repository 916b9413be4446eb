"""``memspace.audit``: everything that is measured about a network, as results and as a page."""

from __future__ import annotations

import time
from dataclasses import replace
from functools import partial
from pathlib import Path

from memspace.attempt import attempt
from memspace.auditing.audit import audit_task
from memspace.auditing.key import run_key
from memspace.auditing.results import Chapter, Results
from memspace.auditing.settings import AuditSettings
from memspace.auditing.shared_store import open_store
from memspace.errors import SettingsError
from memspace.gap.file import opened_gap_model
from memspace.gap.model import GapModel
from memspace.measurement import Unmeasured
from memspace.progress import Progress
from memspace.report.html import render
from memspace.task.task import Task
from memspace.verbs.verb import verb

__all__ = ["audit"]

EXPECTED = "generalisation.predicted_gap"
GIVE = 'give calibration="shipped" (--calibration shipped), or a file made by `memspace zoo calibrate`'


@verb
def audit(
    task: Task,
    *,
    out: str | Path | None = None,
    fresh: bool = False,
    report: bool = True,
    command: str = "",
    settings: AuditSettings | None = None,
    calibration: GapModel | str | Path | None = None,
    progress: Progress | None = None,
) -> Results:
    """Audit a network.

    Args:
        task: a task; or a model followed by ``train``, ``test`` and fields of :class:`memspace.Task` by name, for
            example ``likelihood``, ``class_names``, ``input_shape``, ``refit``; ``parameters="blocks.*.attn.*"`` audits
            some of the parameters. The model is left bit for bit as it was.
        out: folder for results.json, the Parquet tables and report.html; None writes nothing. An interrupted audit of
            the same task and settings goes on there.
        fresh: start again instead of going on.
        report: whether report.html is written, too.
        command: the command line that asks for it, kept with the settings.
        settings: damping, memory budget, seed; see :class:`memspace.AuditSettings`.
        calibration: of the gap, made by ``memspace zoo calibrate``, or its file, for a chapter on the gap to expect;
            ``"shipped"``: the one that is part of the package. None: no such chapter.
        progress: where the work reports.

    Returns:
        every measurement with unit and interval; ``results.measurement("generalisation.loo_estimate").value``.

    Raises:
        MemspaceError: bad input, in one sentence; see ``memspace.errors``.
        SettingsError: the folder has no name.
        DataError: the calibration cannot be read.
    """
    settings = settings or AuditSettings()
    opened = None if calibration is None else opened_gap_model(calibration, "memspace.audit")
    if out is None:
        return _with_gap(audit_task(task, settings, None, progress), task, opened)
    if not str(out).strip():
        raise SettingsError("the folder has no name", where="out", remedy="give a folder, or None to write nothing")
    with open_store(Path(out), run_key(task, settings), fresh=fresh) as store:
        if store.resumed and progress is not None:
            progress.note("Going on from an interrupted run.")
        results = _with_gap(audit_task(task, settings, store, progress), task, opened)
        if command:
            results = replace(results, settings={**results.settings, "command": command})
        store.save_results(results, render(results) if report else None)
    return results


def _with_gap(results: Results, task: Task, opened: tuple[GapModel, str] | None) -> Results:
    """Add what a calibration tells of the gap, or the reason why there is nothing to the chapter on generalisation."""
    if opened is None:
        made: Chapter | Unmeasured = Unmeasured(EXPECTED, "no calibration of the gap was given", GIVE)
    else:
        made = attempt(EXPECTED, partial(_gap_chapter, task, *opened))
    if isinstance(made, Chapter):
        total = results.costs.get("total", 0.0) + made.seconds
        costs = {**results.costs, made.id: made.seconds, "total": total}
        return replace(results, chapters=(*results.chapters, made), costs=costs)
    absent = made
    return replace(
        results,
        chapters=tuple(
            replace(c, unmeasured=(*c.unmeasured, absent)) if c.id == "generalisation" else c for c in results.chapters
        ),
    )


def _gap_chapter(task: Task, model: GapModel, source: str) -> Chapter:
    """The page of ``predict_gap`` as a chapter: its answer says where not to rely on it, and calls for nothing."""
    from memspace.verbs.predict_gap import page_of  # imports the measures of a zoo

    begun = time.perf_counter()
    (chapter,) = page_of(task, model, source)[1].chapters
    return replace(chapter, findings=(), seconds=time.perf_counter() - begun)
