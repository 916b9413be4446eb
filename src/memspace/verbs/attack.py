"""``memspace.attack``: how far inputs are from another decision, predicted from the metric and attacked."""

from __future__ import annotations

from memspace.measures.input_measures import study_inputs
from memspace.measures.input_study import AttackSettings, InputStudy
from memspace.progress import Progress
from memspace.task.checks import check_task, untouched
from memspace.task.task import Task
from memspace.verbs.verb import verb

__all__ = ["attack"]


@verb
def attack(task: Task, *, settings: AttackSettings | None = None, progress: Progress | None = None) -> InputStudy:
    """Read the metric at inputs, attack and corrupt them, and compare example by example.

    Args:
        task: a task, or a model followed by ``train``, ``test`` and fields of :class:`memspace.Task` by name. Inputs
            are drawn from the test data, or from the training data where there are none.
        settings: how many inputs, and how hard to search; see :class:`memspace.AttackSettings`.
        progress: where the work reports.

    Returns:
        distances to another decision in input units, predicted and found, each with its interval; by example in
        ``table()``.

    Raises:
        MemspaceError: bad input, in one sentence.
    """
    check_task(task)
    with untouched(task.model):
        return study_inputs(task, settings or AttackSettings(), progress)
