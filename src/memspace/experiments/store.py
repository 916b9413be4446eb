"""The folder of a study: outcomes of finished networks are kept for as long as the task stays the same."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import torch

from memspace.auditing.store import Store
from memspace.task.fingerprint import fingerprint
from memspace.task.task import Task
from memspace.version import VERSION

__all__ = ["open_study"]


def open_study(folder: Path, task: Task, *, fresh: bool = False) -> Store:
    """Open the folder's store, keyed by all that decides a retrained network except its own examples and seed.

    What was kept for another task, recipe or version is dropped. Nothing is dropped when a study ends: a larger study
    goes on from a smaller one where their networks are the same, and the same one is read.

    Args:
        folder: created if missing.
        task: what is retrained.
        fresh: begin again.

    Returns:
        The store.

    Raises:
        RunFolderError: the folder was written by an incompatible version, or is damaged.
        OutputError: it cannot be written.
    """
    key: dict[str, object] = {"retrain": fingerprint(task), "version": VERSION, "torch": torch.__version__}
    if task.training is not None:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            key["network"] = repr(task.training.make())
        recipe = asdict(task.training.recipe)
        key["recipe"] = {k: v for k, v in recipe.items() if k not in ("threads", "checkpoints")}
    return Store(folder, key, fresh=fresh)
