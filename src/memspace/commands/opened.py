"""From the options of a command to the task it works on, with progress on the terminal."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from rich.console import Console

from memspace.commands.options import Output, TaskOptions
from memspace.errors import TaskError
from memspace.progress import Progress, Silent
from memspace.report.terminal import Terminal

if TYPE_CHECKING:
    from memspace.task.task import Task

__all__ = ["move_to", "opened", "watching"]


@contextmanager
def opened(which: TaskOptions, output: Output, *, train_network: bool = True) -> Iterator[tuple[Task, Progress]]:
    """Resolve the task that the options name, and show the progress of the work inside.

    Args:
        which: names the task; further options of its class (weights, parameters, device, ...) are applied to it.
        output: whether progress is shown at all.
        train_network: False where a built-in task needs no trained network.

    Yields:
        the task, and where the work reports.

    Raises:
        MemspaceError: the task, its weights or the device are not there.
    """
    from memspace.task.builtin import BuildOptions
    from memspace.task.load import resolve

    chosen: dict[str, Any] = {name: getattr(which, name) for name in ("seed", "label_noise") if hasattr(which, name)}
    options = BuildOptions(data_root=which.data_root, train_network=train_network, **chosen)
    with watching(Terminal(stderr=True), output.silent) as progress:
        weights, run = getattr(which, "weights", None), getattr(which, "run", None)
        task = resolve(which.task, options, progress, weights, run)
        if patterns := getattr(which, "parameters", None):
            task = replace(task, parameters=tuple(patterns))
        if device := getattr(which, "device", None):
            move_to(task.model, device)
        yield task, progress


def watching(console: Console, silent: bool) -> AbstractContextManager[Progress]:
    """Show progress on the terminal, or line by line where standard error is not one.

    Args:
        console: of standard error.
        silent: whether nothing is shown.

    Returns:
        a context that gives the progress.
    """
    from memspace.report.progress import LineProgress, TerminalProgress

    if silent:
        return nullcontext(Silent())
    if console.is_terminal:
        return TerminalProgress(console)
    return nullcontext(LineProgress(lambda line: print(line, file=sys.stderr, flush=True)))


def move_to(model: Any, device: str) -> None:
    """Move a model to a device; ``cuda`` is this process's GPU where several processes work together.

    Args:
        model: the network.
        device: as torch names it.

    Raises:
        TaskError: the device is not there.
    """
    from memspace.workers import local_device

    try:
        model.to(local_device(device))
    except (RuntimeError, AssertionError) as error:
        raise TaskError(
            f"the device cannot be used: {str(error).splitlines()[0]}", where=f"--device {device}", remedy="use cpu"
        ) from error
