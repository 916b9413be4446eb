"""The command line's commands beside ``audit``, one module a command; each adds itself to the app by ``add(app)``.

What is slow to import is imported inside the command. Here: what commands share.
"""

from __future__ import annotations

import re
import sys
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from memspace.errors import TaskError
from memspace.progress import Progress, Silent

__all__ = ["DataRoot", "Device", "Json", "Seed", "TaskName", "Weights", "move_to", "parse_memory", "watching"]

TaskName = Annotated[str, typer.Argument(help="A built-in task (see `memspace tasks`) or module:attribute.")]
Weights = Annotated[Path | None, typer.Option(help="Checkpoint: safetensors, or a state dict.")]
DataRoot = Annotated[Path | None, typer.Option(help="Folder (or file) the task's data are read from.")]
Seed = Annotated[int, typer.Option(help="Of every random choice.")]
Device = Annotated[str | None, typer.Option(help="Move the model there first, e.g. cuda.")]
Json = Annotated[bool, typer.Option("--json", help="Results as JSON on standard output.")]


def parse_memory(text: str) -> int:
    """``4GiB``, ``512MiB``, ``2G``, ``800m`` → bytes.

    Raises:
        typer.BadParameter: not a size.
    """
    found = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([kmgt]?)(i?b)?\s*", text.lower())
    if found is None or float(found[1]) <= 0:
        raise typer.BadParameter(f"{text!r} is not a size; write for example 4GiB or 512MiB")
    return int(float(found[1]) * 1024 ** " kmgt".index(found[2] or " "))


def watching(console: Console, silent: bool) -> AbstractContextManager[Progress]:
    """Progress on the terminal, line by line where it is none, or to nobody."""
    from memspace.report.progress import LineProgress, TerminalProgress

    if silent:
        return nullcontext(Silent())
    if console.is_terminal:
        return TerminalProgress(console)
    return nullcontext(LineProgress(lambda line: print(line, file=sys.stderr, flush=True)))


def move_to(model: Any, device: str) -> None:
    """Move a model to a device.

    Raises:
        TaskError: the device is not there.
    """
    try:
        model.to(device)
    except (RuntimeError, AssertionError) as error:
        raise TaskError(
            f"the device cannot be used: {str(error).splitlines()[0]}",
            where=f"--device {device}",
            remedy="use cpu",
        ) from error
