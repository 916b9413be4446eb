"""Several processes that share the work must hold the same model and data: compared before anything is read."""

from __future__ import annotations

from collections.abc import Mapping

from memspace.passes.processes import current
from memspace.task.fingerprint import parts_of
from memspace.task.task import Task

__all__ = ["check_agreement"]


def check_agreement(task: Task, settings: Mapping[str, object] | None = None) -> None:
    """Raise on every process unless all hold the same weights, data, law and settings; alone, do nothing.

    Raises:
        WorkerError: names the first process that differs and in what.
    """
    team = current()
    if team.size > 1:
        team.agree(parts_of(task) | {"settings": repr(sorted((settings or {}).items()))})
