"""The command line's commands beside ``audit``, one module a command; each adds itself to the app by ``add(app)``.

What is slow to import is imported inside the command. Here: what commands share.
"""

from __future__ import annotations

import json
import math
import re
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext, redirect_stdout
from pathlib import Path
from typing import Annotated, Any, TextIO

import typer
from rich.console import Console

from memspace.errors import SettingsError, TaskError
from memspace.limits import BYTES, DAMPING, SEED, SHARE, Limit
from memspace.progress import Progress, Silent

__all__ = [
    "MOST",
    "Damping",
    "DataRoot",
    "Device",
    "Json",
    "Memory",
    "Noise",
    "Seed",
    "TaskName",
    "Weights",
    "default_folder",
    "json_alone",
    "move_to",
    "parse_memory",
    "say_json",
    "watching",
]


MOST = 10**9  # of anything that is counted


def _within(limit: Limit) -> Callable[[typer.CallbackParam, Any], Any]:
    """A check of an option's value; the same as that of the setting it becomes."""

    def check(option: typer.CallbackParam, value: Any) -> Any:
        return limit.optional(value, option.opts[0])

    return check


TaskName = Annotated[str, typer.Argument(help="A built-in task (see `memspace tasks`) or module:attribute.")]
Weights = Annotated[Path | None, typer.Option(help="Checkpoint: safetensors, or a state dict.")]
DataRoot = Annotated[Path | None, typer.Option(help="Folder (or file) the task's data are read from.")]
Seed = Annotated[int, typer.Option(help="Of every random choice.", callback=_within(SEED))]
Noise = Annotated[
    float, typer.Option(help="Share of training labels a built-in task corrupts, below 1.", callback=_within(SHARE))
]
Damping = Annotated[
    float | None, typer.Option(help="γ; chosen from the data where not given.", callback=_within(DAMPING))
]
Memory = Annotated[str, typer.Option(help="What may be held besides model and data.")]
Device = Annotated[str | None, typer.Option(help="Move the model there first, e.g. cuda.")]
Json = Annotated[bool, typer.Option("--json", help="Results as JSON on standard output.")]


def parse_memory(text: str) -> int:
    """``4GiB``, ``512MiB``, ``2G``, ``800m`` → bytes.

    Raises:
        SettingsError: not a size.
    """
    found = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([kmgt]?)(i?b)?\s*", text.lower(), re.ASCII)
    size = math.inf if found is None else float(found[1]) * 1024 ** " kmgt".index(found[2] or " ")
    if not BYTES.low <= size <= BYTES.high:
        raise SettingsError(f"{text[:60]!r} is not a size", where="--memory", remedy="write for example 4GiB or 512MiB")
    return int(size)


def default_folder(name: str) -> Path:
    """Where the results of a task of this name go: always a folder within ``runs``, whatever the name."""
    safe = re.sub(r"[^\w.+=@ -]+", "_", name)[:100].strip(". ")
    return Path("runs") / (safe or "task")


def watching(console: Console, silent: bool) -> AbstractContextManager[Progress]:
    """Progress on the terminal, line by line where it is none, or to nobody."""
    from memspace.report.progress import LineProgress, TerminalProgress

    if silent:
        return nullcontext(Silent())
    if console.is_terminal:
        return TerminalProgress(console)
    return nullcontext(LineProgress(lambda line: print(line, file=sys.stderr, flush=True)))


_standard: TextIO | None = None  # where JSON goes while everything else is turned away from standard output


@contextmanager
def json_alone() -> Iterator[None]:
    """Standard output is for :func:`say_json`: what a user's code prints inside goes to standard error."""
    global _standard
    _standard = sys.stdout
    try:
        with redirect_stdout(sys.stderr):
            yield
    finally:
        _standard = None


def say_json(value: Any) -> None:
    """One line of JSON on standard output; what JSON cannot hold becomes null."""
    from memspace.auditing.results import clean

    out = _standard if _standard is not None else sys.stdout
    print(json.dumps(clean(value), ensure_ascii=False, allow_nan=False), file=out, flush=True)


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
