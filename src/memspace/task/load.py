"""From what a user types to a task: a built-in name, or ``module:attribute`` of their own code.

A module may be named by its file, too: ``folder/file.py:attribute``.
"""

from __future__ import annotations

import difflib
import importlib
import importlib.util
import inspect
import sys
import traceback
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from memspace.errors import MemspaceError, TaskError
from memspace.progress import Progress
from memspace.task.builtin import BuildOptions, build, builtin_tasks
from memspace.task.checkpoint import load_weights
from memspace.task.recording import load_run
from memspace.task.task import Task

__all__ = ["resolve"]


def resolve(
    spec: str, options: BuildOptions, progress: Progress, weights: Path | None = None, run: Path | None = None
) -> Task:
    """Build the task that a command line names.

    ``module:attribute`` may be a Task, a function that gives one, or one that takes the data folder first. So may
    ``folder/file.py:attribute``, read with its folder on the path as ``python folder/file.py`` reads it.

    Args:
        spec: a built-in name, ``module:attribute`` or ``file.py:attribute``.
        options: of a built-in task; their ``data_root`` is what a user's function is given.
        progress: what shows a training.
        weights: a file with other weights.
        run: the folder of a recorded training of it; without ``weights`` the model takes its last state.

    Returns:
        The task.

    Raises:
        TaskError: nothing has that name, or it names no task.
    """
    if ":" not in spec:
        known = builtin_tasks()
        if spec not in known:
            near = difflib.get_close_matches(spec, known, n=1)
            hint = f"did you mean {near[0]!r}? " if near else ""
            raise TaskError(
                f"there is no built-in task {spec!r}",
                where="task name",
                remedy=f"{hint}use one of {', '.join(known)}, or module:attribute or file.py:attribute for your own",
            )
        task = build(spec, replace(options, train_network=weights is None and run is None), progress)
    else:
        task = _import(spec, options)
    if run is not None:
        task = _with_run(task, run, last=weights is None)
    return task if weights is None else _with_weights(task, weights)


def _with_run(task: Task, folder: Path, last: bool) -> Task:
    """Add the training recorded in a folder to the task; with ``last`` also the weights it ended at."""
    run = load_run(folder, task.model)
    if last:
        task.model.load_state_dict(run.states[-1])
    description = {k: v for k, v in task.description.items() if k != "training"}
    recorded = f"{len(run.states)} checkpoints, steps {run.step[0]:,} to {run.step[-1]:,}"
    return replace(task, run=run, description=description | {"recorded training": recorded})


def _with_weights(task: Task, path: Path) -> Task:
    """Load the task's weights from a file; a recorded training that does not end at them is left out."""
    load_weights(task.model, path)
    state = task.model.state_dict()
    description = {**task.description, "weights": path.name}
    run = task.run
    end = {} if run is None else run.states[-1]
    if run is not None and any(not torch.equal(v, end[k].to(v.device)) for k, v in state.items()):
        run = None
        description.pop("training", None)
    return replace(task, run=run, description=description)


def _import(spec: str, options: BuildOptions) -> Task:
    module_name, _, attribute = spec.rpartition(":")
    try:
        value: Any = _module(module_name)
    except MemspaceError:
        raise
    except Exception as error:
        raise TaskError(
            f"{module_name} cannot be imported: {type(error).__name__}: {' '.join(str(error).split())}",
            where=spec,
            remedy=_importable(module_name),
        ) from error
    for part in attribute.split("."):
        if not hasattr(value, part):
            near = difflib.get_close_matches(part, dir(value), n=1)
            raise TaskError(
                f"{module_name} has no attribute {attribute!r}",
                where=spec,
                remedy=f"did you mean {near[0]!r}" if near else "name a Task or a function that gives one",
            )
        value = getattr(value, part)
    if callable(value) and not isinstance(value, Task):
        value = _call(value, spec, options.data_root)
    if not isinstance(value, Task):
        raise TaskError(
            f"{spec} gives a {type(value).__name__}, not a memspace.Task",
            where=spec,
            remedy="return memspace.Task(model=..., train=...)",
        )
    return value


def _module(name: str) -> Any:
    """Import a module by its name from the current folder, or by its file from the file's."""
    file = Path(name)
    if file.suffix != ".py":
        _put_on_path(Path.cwd())
        return importlib.import_module(name)
    file = file.resolve()
    if not file.is_file():
        raise FileNotFoundError(f"there is no file {file}")
    apart = f"{file.stem} of {file}"  # where another module has the name
    for before in map(sys.modules.get, (file.stem, apart)):
        if before is not None and Path(getattr(before, "__file__", None) or "").resolve() == file:
            return before
    _put_on_path(file.parent)
    called = apart if file.stem in sys.modules else file.stem
    where = importlib.util.spec_from_file_location(called, file)
    assert where is not None
    assert where.loader is not None
    module = sys.modules[called] = importlib.util.module_from_spec(where)  # classes are looked up by this name
    try:
        where.loader.exec_module(module)
    except BaseException:
        del sys.modules[called]
        raise
    return module


def _put_on_path(folder: Path) -> None:
    if str(folder) not in sys.path:
        sys.path.insert(0, str(folder))


def _importable(name: str) -> str:
    if name.endswith(".py"):
        return f"check that the file is there and runs on its own: python {name}"
    if Path(f"{name}.py").is_file():
        return f"name the file as {name}.py:attribute, or run from the folder that holds it"
    return "run from the folder that holds it and check that it imports on its own"


def _call(make: Callable[..., Any], spec: str, data_root: Path | None) -> Any:
    """Call the user's function; its own failures become one sentence."""
    named = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    hint = "call it on its own and repair it"
    try:
        needs = [p for p in inspect.signature(make).parameters.values() if p.default is p.empty and p.kind in named]
        if needs and data_root is None:
            hint = "give --data-root DIR if it needs one"
        return make(data_root) if needs else make()
    except MemspaceError:
        raise
    except Exception as error:
        raise TaskError(
            f"{spec} raised {type(error).__name__}: {' '.join(str(error).split())}",
            where=_last_line(error),
            remedy=hint,
        ) from error


def _last_line(error: BaseException) -> str:
    """File and line where an exception was raised."""
    frame = traceback.extract_tb(error.__traceback__)[-1]
    return f"{Path(frame.filename).name}, line {frame.lineno}"
