"""``memspace.compare``: how far apart two networks of one task are, over which barrier, in which layers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import TypedDict, Unpack

from memspace.auditing.chapters.comparison import comparison_results
from memspace.auditing.compare import CompareSettings, NetworkComparison, compare_networks
from memspace.auditing.store import Store
from memspace.errors import SettingsError
from memspace.files import locked
from memspace.geometry.stacked import State
from memspace.passes.processes import current
from memspace.progress import Progress
from memspace.report.html import COMPARISON, render
from memspace.task.checkpoint import check_fit
from memspace.task.checks import check_task, holding
from memspace.task.task import Task
from memspace.verbs.verb import verb

__all__ = ["ComparePage", "compare"]

NAMES = ("A", "B")


class ComparePage(TypedDict, total=False):
    """The page that a comparison is written to.

    Args:
        names: what the two networks are called.
        out: folder for results.json, the tables and report.html; None writes nothing.
        command: the command line that asks for it, kept with the settings.
    """

    names: tuple[str, str]
    out: str | Path | None
    command: str


@verb
def compare(
    task: Task,
    a: State,
    b: State,
    *,
    path: Sequence[State] = (),
    settings: CompareSettings | None = None,
    progress: Progress | None = None,
    **page: Unpack[ComparePage],
) -> NetworkComparison:
    """Compare two networks of one task: distance with bounds, barrier, layers, examples.

    Args:
        task: a task, or a model followed by ``train``, ``test`` and fields of :class:`memspace.Task` by name.
        a: state dict of the first network.
        b: state dict of the second network.
        path: states from a to b, for example the checkpoints of a training: a further start for the search, and an
            upper bound of the length.
        settings: alignment, examples and effort; see :class:`memspace.CompareSettings`.
        progress: where the work reports.
        **page: ``names``: what the two are called on the page, ``("A", "B")`` unless given. ``out``: folder for
            results.json, the tables and report.html; None writes nothing. ``command``: the command line that asks for
            it, kept with the settings.

    Returns:
        the comparison; lengths in nats^½. ``comparison.results`` holds every number with its interval.

    Raises:
        MemspaceError: bad input, in one sentence.
        SettingsError: there are not two names.
    """
    settings = settings or CompareSettings()
    names, out, command = page.get("names", NAMES), page.get("out"), page.get("command", "")
    if len(names) != 2:
        raise SettingsError(f"there are {len(names)} names of two networks", where="names", remedy="give two")
    for name, state in zip(names, (a, b), strict=True):
        check_fit(task.model, state, f"memspace.compare, {name}")
        with holding(task.model, state):
            check_task(task)
    comparison = compare_networks(task, a, b, path=path, settings=settings, progress=progress)
    results = comparison_results(task, comparison, names, asdict(settings) | ({"command": command} if command else {}))
    if out is not None and current().rank == 0:  # one folder, one writer
        with locked(Path(out)):
            Store(Path(out), {"compare": list(names)}, fresh=True).save_results(results, render(results, COMPARISON))
    return replace(comparison, results=results)
