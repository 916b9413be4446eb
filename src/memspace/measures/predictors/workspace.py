"""A workspace that holds what the predictors of generalisation need of a trained network."""

from __future__ import annotations

from memspace.measures.correct import by_example
from memspace.measures.values import Budget, TrainingOutputs
from memspace.measures.workspace import Workspace
from memspace.passes.outputs import outputs
from memspace.passes.space import ParameterSpace
from memspace.passes.verify import checked_space
from memspace.progress import Progress, Silent
from memspace.task.task import Task

__all__ = ["workspace_of"]


def workspace_of(
    task: Task, *further: object, seed: int = 0, memory: int = 2**30, progress: Progress | None = None
) -> Workspace:
    """Check a task and read the outputs on its training data; all else is made when a measure needs it.

    Args:
        task: the network and its training data; its test data are not read.
        further: values that only the caller has, for example ``Sisters`` and a ``TrainingCurve``.
        seed: of all draws.
        memory: bytes, excluding model and data.
        progress: where long work reports.

    Returns:
        a workspace whose ``measure_all`` takes the measures of the chapter ``predictors``.

    Raises:
        MemspaceError: the task cannot be read; see ``memspace.errors``.
    """
    space = checked_space(task)
    f, y = outputs(task, task.train)
    law = task.likelihood
    training = TrainingOutputs(f, y, by_example(law.nll(f.double(), y)), law.weight(f, y))
    budget = Budget(seed, memory, progress or Silent())
    values = {Task: task, ParameterSpace: space, Budget: budget, TrainingOutputs: training}
    return Workspace(values | {type(value): value for value in further})
