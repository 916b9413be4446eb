"""Files written whole or not at all, failures in one sentence."""

from __future__ import annotations

import errno
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow as pa
from safetensors import SafetensorError

from memspace.errors import OutputError

__all__ = ["clear", "writing", "written"]


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turn a failing write into one sentence.

    Raises:
        OutputError: the disk is full, read-only or not a folder.
    """
    try:
        yield
    except (OSError, SafetensorError, pa.ArrowException) as error:
        full = isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT)
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error).splitlines()[0]
        raise OutputError(
            "the disk is full" if full else f"results cannot be written: {reason}",
            where=str(path),
            remedy="free some space and run the same command again: what is finished is kept"
            if full
            else "choose a writable folder with --out",
        ) from error


def written(path: Path, write: Callable[[Path], Any]) -> None:
    """Let ``write`` fill a file beside ``path`` and put it in its place."""
    temporary = path.with_name(path.name + ".tmp")
    with writing(path):
        try:
            write(temporary)
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)


def clear(folder: Path) -> None:
    """Take a folder away if it is there."""
    if folder.exists():
        with writing(folder):
            shutil.rmtree(folder)
