"""The key that an interrupted audit must match to be resumed."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import torch

from memspace.auditing.settings import AuditSettings
from memspace.task.checks import untouched
from memspace.task.fingerprint import behaviour, fingerprint
from memspace.task.task import Task
from memspace.version import VERSION

__all__ = ["run_key"]


def run_key(task: Task, settings: AuditSettings) -> dict[str, Any]:
    """Make the key of a run folder, the same from Python and from the command line.

    It contains the task's fingerprint, the model's outputs on a few inputs, the settings, and the versions used.

    Args:
        task: the network and its data.
        settings: of the audit.

    Returns:
        the key, of plain types.
    """
    with untouched(task.model):
        answers = behaviour(task)
    return {
        "task": fingerprint(task),
        "answers": answers,
        "settings": asdict(settings),
        "version": VERSION,
        "torch": torch.__version__,
    }
