"""The number of examples of a batch: few enough for the caches, enough to fill a matrix product."""

from __future__ import annotations

from memspace.passes.profile import profile_of
from memspace.task.data import Data
from memspace.task.task import Task

__all__ = ["LEAST", "TRANSIENT", "examples_at_once"]

TRANSIENT = 2**21  # numbers in one layer's signals: larger ones leave the caches and page in
MOST, LEAST = 512, 16


def examples_at_once(task: Task, data: Data | None = None, rows: int = 1) -> int:
    """Choose the batch size of a pass.

    Args:
        task: the network.
        data: that the pass reads; None: the task's training data.
        rows: cotangents pulled back per example.

    Returns:
        A number of examples between ``LEAST`` and ``MOST``.
    """
    return max(LEAST, min(MOST, TRANSIENT // (profile_of(task, data).widest * rows)))
