"""The one call of the Python interface."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from torch import nn

from memspace.arguments import check_names, typed
from memspace.auditing.audit import Settings, audit_task
from memspace.auditing.key import run_key
from memspace.auditing.results import Results
from memspace.auditing.shared_store import open_store
from memspace.errors import SettingsError, TaskError
from memspace.progress import Progress
from memspace.report.html import render
from memspace.task.likelihood import Categorical, Likelihood
from memspace.task.task import Task

__all__ = ["audit"]


@typed
def audit(
    model: nn.Module | Task,
    train: Any = None,
    test: Any = None,
    *,
    likelihood: Likelihood | None = None,
    out: str | Path | None = None,
    settings: Settings | None = None,
    progress: Progress | None = None,
    **task: Any,
) -> Results:
    """Audit a network.

    Args:
        model: any ``nn.Module`` giving (B, C) or (B, positions, C); it is left bit for bit as it was. Or a whole
            :class:`memspace.Task`, without anything else.
        train, test: (x, y) tensors or arrays, a Dataset, a DataLoader or an iterable; see :class:`memspace.Data`.
        likelihood: the output law; Categorical by default.
        out: folder for results.json, the Parquet tables and report.html; None writes nothing.
        settings: damping, memory budget, seed; see :class:`memspace.Settings`.
        task: further fields of :class:`memspace.Task`, for example ``class_names``, ``input_shape``, ``refit``;
            ``parameters="blocks.*.attn.*"`` audits some of the parameters.

    Returns:
        every measurement with unit and error; ``results.measurement("generalisation.loo_estimate").value``.

    Raises:
        MemspaceError: bad input, in one sentence; see ``memspace.errors``.
    """
    if isinstance(model, Task):
        if task or not (train is test is likelihood is None):
            raise _misused("a Task is given and data, an output law or fields of a Task besides", "give the Task alone")
        job = model
    else:
        if not isinstance(model, nn.Module):
            raise _misused(f"the model is a {type(model).__name__}, not an nn.Module", "give the network, then data")
        if train is None:
            raise _misused("no training data are given", "call memspace.audit(model, train)")
        check_names(task, Task, "memspace.audit")
        task.setdefault("name", type(model).__name__)
        job = Task(model=model, train=train, test=test, likelihood=likelihood or Categorical(), **task)
    settings = settings or Settings()
    if out is None:
        return audit_task(job, settings, None, progress)
    if not str(out).strip():
        raise SettingsError("the folder has no name", where="out", remedy="give a folder, or None to write nothing")
    with open_store(Path(out), run_key(job, settings)) as store:
        results = audit_task(job, settings, store, progress)
        store.save_results(results, render(results))
    return results


def _misused(what: str, remedy: str) -> TaskError:
    return TaskError(what, where="memspace.auditing", remedy=remedy)
