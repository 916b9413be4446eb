"""``memspace.audit``: everything that is measured about a network, as results and as a page."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from memspace.auditing.audit import audit_task
from memspace.auditing.key import run_key
from memspace.auditing.results import Results
from memspace.auditing.settings import AuditSettings
from memspace.auditing.shared_store import open_store
from memspace.errors import SettingsError
from memspace.progress import Progress
from memspace.report.html import render
from memspace.task.task import Task
from memspace.verbs.verb import verb

__all__ = ["audit"]


@verb
def audit(
    task: Task,
    *,
    out: str | Path | None = None,
    fresh: bool = False,
    report: bool = True,
    command: str = "",
    settings: AuditSettings | None = None,
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
        progress: where the work reports.

    Returns:
        every measurement with unit and interval; ``results.measurement("generalisation.loo_estimate").value``.

    Raises:
        MemspaceError: bad input, in one sentence; see ``memspace.errors``.
        SettingsError: the folder has no name.
    """
    settings = settings or AuditSettings()
    if out is None:
        return audit_task(task, settings, None, progress)
    if not str(out).strip():
        raise SettingsError("the folder has no name", where="out", remedy="give a folder, or None to write nothing")
    with open_store(Path(out), run_key(task, settings), fresh=fresh) as store:
        if store.resumed and progress is not None:
            progress.note("Going on from an interrupted run.")
        results = audit_task(task, settings, store, progress)
        if command:
            results = replace(results, settings={**results.settings, "command": command})
        store.save_results(results, render(results) if report else None)
    return results
