"""``memspace.retrain``: what retrained networks say."""

from __future__ import annotations

from pathlib import Path

from memspace.experiments.retrain import RetrainResults, RetrainSettings, retraining_study
from memspace.experiments.store import open_study
from memspace.experiments.tables import write_study
from memspace.files import locked
from memspace.progress import Progress
from memspace.task.task import Task
from memspace.verbs.verb import verb

__all__ = ["retrain"]


@verb
def retrain(
    task: Task,
    *,
    out: str | Path | None = None,
    settings: RetrainSettings | None = None,
    progress: Progress | None = None,
) -> RetrainResults:
    """Retrain networks on parts of the data and measure what became of the predictions.

    Args:
        task: a task, or a model followed by ``train``, ``test`` and fields of :class:`memspace.Task` by name. Its
            ``training`` (or ``refit``) says how a network is trained.
        out: folder that keeps every finished network and the tables; a call that finds some there goes on from them.
            None writes nothing.
        settings: which parts, how many networks; see :class:`memspace.RetrainSettings`.
        progress: where the work reports.

    Returns:
        measurements by part with their 95% intervals, tables, and the outcomes of every network.

    Raises:
        TaskError: the task cannot train again.
        DataError: settings that do not fit the data.
        OutputError: the folder cannot be written.
    """
    settings = settings or RetrainSettings()
    if out is None:
        return retraining_study(task, settings, progress=progress)
    with locked(Path(out)):
        results = retraining_study(task, settings, store=open_study(Path(out), task), progress=progress)
        write_study(Path(out), results.to_dict(), results.tables)
    return results
