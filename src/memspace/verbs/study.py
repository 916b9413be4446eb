"""``memspace.study``: training that pays for its action against the usual regularisers, at equal compute."""

from __future__ import annotations

import json
from pathlib import Path

from memspace.auditing.results import clean
from memspace.auditing.store import write_text
from memspace.experiments.action_network import examples_of
from memspace.experiments.action_settings import StudySettings
from memspace.experiments.action_study import ActionStudy, action_study
from memspace.experiments.action_work import open_study_folder
from memspace.files import locked
from memspace.progress import Progress
from memspace.task.task import Task
from memspace.verbs.verb import verb

__all__ = ["study"]


@verb
def study(
    task: Task,
    *,
    out: str | Path | None = None,
    fresh: bool = False,
    settings: StudySettings | None = None,
    progress: Progress | None = None,
) -> ActionStudy:
    """Compare regularisers of the action, decay, dropout, smoothing and others at equal compute and equal tuning.

    Args:
        task: a task, or a model followed by ``train``, ``test`` and fields of :class:`memspace.Task` by name; its data
            are what the study's own networks are trained and tested on.
        out: folder that keeps every finished training; a call that finds some there goes on from them. None writes
            nothing.
        fresh: do not go on from what the folder holds.
        settings: steps, seeds, label noise; see :class:`memspace.StudySettings`.
        progress: where the work reports.

    Returns:
        means over seeds by method, and paired differences from weight decay with their verdicts.

    Raises:
        DataError: not enough data, no test data, or inputs that are not tensors of numbers with one class each.
        OutputError: the folder cannot be written.
    """
    s = settings or StudySettings()
    examples = examples_of(task, noise=s.noise, train=s.train, valid=s.valid, test=s.test)
    if out is None:
        return action_study(examples, s, progress=progress)
    with locked(Path(out)):
        store = open_study_folder(Path(out), examples, s, fresh=fresh)
        results = action_study(examples, s, store=store, progress=progress)
        write_text(Path(out) / "study.json", json.dumps(clean(results.to_dict()), indent=1, ensure_ascii=False))
    return results
