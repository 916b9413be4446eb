"""The choice between the two backends that compute a :class:`Reading`: the exact dual, or streamed EKFAC."""

from __future__ import annotations

from memspace.auditing.ekfac_backend import ekfac_backend
from memspace.auditing.exact_backend import exact_backend
from memspace.auditing.job import ReadingJob, held_out_of
from memspace.auditing.plan import AuditSettings, Plan, make_plan
from memspace.auditing.reading import Reading
from memspace.measures.values import HeldOut
from memspace.measures.workspace import Workspace
from memspace.passes.verify import checked_space
from memspace.progress import Progress, Silent
from memspace.task.checks import untouched
from memspace.task.task import Task
from memspace.value import Absent

__all__ = ["read", "read_task"]


def read(job: ReadingJob, refits: HeldOut | Absent | None = None) -> Reading:
    """Run the passes that all chapters share.

    Args:
        job: what to read, and how.
        refits: other refits than an audit's, or why there are none; None: an audit's.

    Returns:
        what the backend of the plan reads.
    """
    held_out = held_out_of(job) if refits is None else refits
    return (exact_backend if job.plan.representation == "dual" else ekfac_backend)(job, held_out)


def read_task(
    task: Task, settings: AuditSettings | None = None, progress: Progress | None = None
) -> tuple[Workspace, Plan]:
    """Check a task, plan its audit and read it, without chapters: the values that measures need.

    Args:
        task: the network and its data.
        settings: of the audit.
        progress: where every pass reports.

    Returns:
        the workspace in which measures are made, and the plan.

    Raises:
        MemspaceError: bad input, in one sentence.
    """
    settings, progress = settings or AuditSettings(), progress or Silent()
    space = checked_space(task)
    with untouched(task.model):
        plan = make_plan(task, space, settings)
        reading = read(ReadingJob(task, space, plan, settings, None, progress))
        return reading.workspace(settings, progress), plan
