"""``memspace.training_action``: the action of a recorded training, and how far it is from least action."""

from __future__ import annotations

from typing import Annotated

from memspace.action.training import PROBE, SLOPE_PROBE, TrainingAction
from memspace.action.training import training_action as action_of_training
from memspace.limits import BYTES, COUNT, SEED
from memspace.progress import Progress, Silent
from memspace.task.checks import check_task, untouched
from memspace.task.task import Task
from memspace.verbs.verb import verb

__all__ = ["training_action"]


@verb
def training_action(
    task: Task,
    *,
    probe: Annotated[int, COUNT] = PROBE,
    slope_probe: Annotated[int, COUNT] = SLOPE_PROBE,
    memory: Annotated[int, BYTES] = 2**30,
    seed: Annotated[int, SEED] = 0,
    progress: Progress | None = None,
) -> TrainingAction:
    """Measure length, action, loss bought and action excess of a recorded training.

    Args:
        task: a task with ``run``, or a model followed by ``train`` and fields of :class:`memspace.Task` by name.
        probe: training examples that predictions are followed on; lowered to what ``memory`` holds.
        slope_probe: training examples that the slope ‖∇L‖_{F⁻¹} is computed on; lowered likewise.
        memory: bytes for the outputs along the path and for Fisher rows.
        seed: random seed of the choice of examples.
        progress: where the work reports.

    Returns:
        lengths (nats^½), action and excess (nats), each with its interval; by checkpoint and by segment as tables.

    Raises:
        MemspaceError: bad input, in one sentence.
    """
    check_task(task)
    with untouched(task.model):
        return action_of_training(
            task, probe=probe, slope_probe=slope_probe, seed=seed, memory=memory, progress=progress or Silent()
        )
