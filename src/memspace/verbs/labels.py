"""``memspace.labels``: training labels that look wrong, the likeliest first."""

from __future__ import annotations

from typing import Annotated

from memspace.auditing.label_issues import LabelIssues, label_issues
from memspace.auditing.results import Results
from memspace.auditing.settings import AuditSettings
from memspace.limits import COUNT, WHOLE
from memspace.progress import Progress
from memspace.task.task import Task
from memspace.verbs.verb import verb

__all__ = ["labels"]


@verb
def labels(
    task: Task | Results,
    *,
    settings: AuditSettings | None = None,
    folds: int | None = None,
    repeats: Annotated[int, COUNT] = 1,
    reasons: Annotated[int, WHOLE] = 50,
    progress: Progress | None = None,
) -> LabelIssues:
    """Judge every training label.

    p(label wrong | input, label) by Bayes' rule in a noise model fitted to predictors that did not see the label: the
    same that an audit says, at the same refits. Several labels 0 or 1 are judged output by output; numbers by
    leave-one-out residuals. See ``docs/labels.md``.

    Args:
        task: a task, or a model followed by ``train``, ``test`` and fields of :class:`memspace.Task` by name; or the
            results of an audit, whose own numbers are then ranked (without reasons).
        settings: damping, memory budget, seed; see :class:`memspace.AuditSettings`.
        folds: parts of each partition in refits, at most as many as examples: K parts cost K − 1 trainings; 0: no
            refits; None: an audit's refits.
        repeats: partitions averaged over.
        reasons: for how many of the first examples neighbours in influence are found.
        progress: where the work reports.

    Returns:
        every training label with its probability of being wrong, likeliest first, and the estimated share of wrong
        labels with its interval.

    Raises:
        SettingsError: folds, repeats or reasons are out of range.
        TaskError: labels are neither one class, nor several 0 or 1, nor numbers, for each example.
    """
    return label_issues(task, settings=settings, folds=folds, repeats=repeats, reasons=reasons, progress=progress)
