"""How many examples go through the network at a time: few enough for the caches, enough to fill a matrix product."""

from __future__ import annotations

from memspace.passes.profile import profile_of
from memspace.task.data import Data
from memspace.task.task import Task

__all__ = ["LEAST", "TRANSIENT", "examples_at_once"]

TRANSIENT = 2**21  # numbers in one layer's signals: larger ones leave the caches and page in
MOST, LEAST = 512, 16


def examples_at_once(task: Task, data: Data | None = None, rows: int = 1) -> int:
    """Choose the batch of a pass that pulls ``rows`` cotangents back per example.

    Args:
        data: that the pass reads (default: the task's training data).

    Returns:
        a number of examples.
    """
    return max(LEAST, min(MOST, TRANSIENT // (profile_of(task, data).widest * rows)))
