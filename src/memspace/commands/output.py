"""What commands tell and write: JSON on standard output, files, and the folder of a run."""

from __future__ import annotations

import json
import re
import shlex
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stdout
from pathlib import Path
from typing import Any, TextIO

from memspace.commands.options import FileOutput, Output
from memspace.report.terminal import Terminal

__all__ = ["default_folder", "json_alone", "say_json", "tell", "typed_command"]

_standard: TextIO | None = None  # where JSON goes while everything else is turned away from standard output


def tell(output: Output, content: dict[str, Any], show: Callable[[Terminal], None]) -> None:
    """Write results to the file asked for, and tell them as JSON or as a summary.

    Args:
        output: what is asked for.
        content: the results; what JSON cannot hold becomes null.
        show: prints the summary.

    Raises:
        OutputError: the file cannot be written.
    """
    if isinstance(output, FileOutput) and output.out is not None:
        from memspace.auditing.results import clean
        from memspace.auditing.store import write_text

        write_text(output.out, json.dumps(clean(content), indent=1, ensure_ascii=False))
    if output.as_json:
        say_json(content)
    elif not output.quiet:
        show(Terminal())


@contextmanager
def json_alone() -> Iterator[None]:
    """Keep standard output for :func:`say_json`: what a user's code prints inside goes to standard error.

    Yields:
        nothing.
    """
    global _standard
    _standard = sys.stdout
    try:
        with redirect_stdout(sys.stderr):
            yield
    finally:
        _standard = None


def say_json(value: Any) -> None:
    """Print one line of JSON on standard output; what JSON cannot represent becomes null.

    Args:
        value: plain types, tensors or arrays.
    """
    from memspace.auditing.results import clean

    stream = _standard if _standard is not None else sys.stdout
    print(json.dumps(clean(value), ensure_ascii=False, allow_nan=False), file=stream, flush=True)


def default_folder(name: str) -> Path:
    """Name the folder of a task's results: always within ``runs``, whatever the task is called.

    Args:
        name: of the task.

    Returns:
        a relative path.
    """
    safe = re.sub(r"[^\w.+=@ -]+", "_", name)[:100].strip(". ")
    return Path("runs") / (safe or "task")


def typed_command() -> str:
    """Quote the command line as it was typed, to be stored with the results.

    Returns:
        the command.
    """
    return shlex.join(["memspace", *sys.argv[1:]])
