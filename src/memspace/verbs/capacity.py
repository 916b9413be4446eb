"""``memspace.capacity``: bits of random labels that networks of an architecture store."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

from memspace.experiments.capacity import CapacitySettings
from memspace.experiments.capacity_study import CapacityResults, architectures, study_capacity
from memspace.limits import COUNT, Limit
from memspace.progress import Progress
from memspace.task.task import Task
from memspace.verbs.verb import verb

__all__ = ["capacity"]

WIDTH = Limit(1, 2**16, whole=True)  # a matrix of such a side has four thousand million entries


@verb
def capacity(
    task: Task,
    *,
    widths: Sequence[int] = (),
    depth: Annotated[int, COUNT] = 1,
    forgetting: bool = False,
    settings: CapacitySettings | None = None,
    progress: Progress | None = None,
) -> CapacityResults:
    """Train copies on random labels, more and more of them, and take the most they store.

    Args:
        task: a task, or a model followed by ``train`` and fields of :class:`memspace.Task` by name. Its ``training``
            says how a fresh network is made; inputs and number of classes are its own.
        widths: fully connected networks of these widths instead of the task's own.
        depth: hidden layers of those.
        forgetting: also overwrite a first set of labels with a second.
        settings: loads, seeds and steps; see :class:`memspace.CapacitySettings`.
        progress: where the work reports.

    Returns:
        for each architecture the bits stored, with their interval over seeds: a lower bound of its capacity.

    Raises:
        TaskError: the task does not say how its network is made, or its outputs are not classes.
        SettingsError: a number is out of its range.
    """
    chosen = architectures(task, tuple(WIDTH(w, "widths") for w in widths), depth)
    settings = settings or CapacitySettings()
    studies = tuple(study_capacity(a, settings, forgetting=forgetting, progress=progress) for a in chosen)
    return CapacityResults(task.name, studies)
