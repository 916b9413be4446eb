"""Processes that share the work must hold the same model and data, which is checked before anything is read."""

from __future__ import annotations

from collections.abc import Mapping

from memspace.passes.processes import current
from memspace.task.fingerprint import parts_of
from memspace.task.task import Task

__all__ = ["check_agreement"]


def check_agreement(task: Task, settings: Mapping[str, object] | None = None) -> None:
    """Raise on every process unless all hold the same weights, data, law and settings; do nothing in a single process.

    Args:
        task: the network and its data.
        settings: further values that have to be the same, by name.

    Raises:
        WorkerError: processes differ; the message names the first that does, and in what.
    """
    processes = current()
    if processes.size > 1:
        processes.agree(parts_of(task) | {"settings": repr(sorted((settings or {}).items()))})
