"""Files written whole or not at all, folders that one process works in, failures in one sentence."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import os
import shutil
import socket
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow as pa
from safetensors import SafetensorError

from memspace.errors import OutputError, RunFolderError

__all__ = ["clear", "digest_of", "locked", "writing", "written", "written_together"]

LOCK = ".lock"


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turn a failing write into one sentence.

    Args:
        path: what is written.

    Yields:
        Nothing.

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
    """Let a function fill a file next to a path and put it in its place.

    Args:
        path: of the file.
        write: fills the file at the path it gets.
    """
    written_together({path: write})


def written_together(files: Mapping[Path, Callable[[Path], Any]]) -> None:
    """Fill all files before the first is put in its place: where one cannot be written, all stay as they were.

    Args:
        files: for each path what fills the file.
    """
    temporary: dict[Path, Path] = {}
    try:
        for path, write in files.items():
            with writing(path):
                temporary[path] = _new_file(path)
                write(temporary[path])
        for path, filled in temporary.items():
            with writing(path):
                filled.replace(path)
    finally:
        for filled in temporary.values():
            with contextlib.suppress(OSError):
                filled.unlink(missing_ok=True)


def _new_file(path: Path) -> Path:
    """An empty file of a name nobody else uses, so that no link that lies there is followed."""
    handle, name = tempfile.mkstemp(prefix=path.name + ".", suffix=".tmp", dir=path.parent)
    mask = os.umask(0)
    os.umask(mask)
    os.fchmod(handle, 0o666 & ~mask)  # mkstemp's files are their owner's alone
    os.close(handle)
    return Path(name)


def clear(folder: Path) -> None:
    """Take a folder away if it is there; of a link, the link alone.

    Args:
        folder: to take away.
    """
    if folder.is_symlink():
        with writing(folder):
            folder.unlink()
    elif folder.exists():
        with writing(folder):
            shutil.rmtree(folder)


def digest_of(path: Path) -> str:
    """Compute the SHA-256 of a file's content.

    Args:
        path: of the file.

    Returns:
        Hexadecimal digits.
    """
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Let one process at a time work in a folder; the lock of a process that ended ends with it.

    Args:
        folder: to work in; created if missing.

    Yields:
        Nothing.

    Raises:
        RunFolderError: another process works there.
        OutputError: the folder cannot be written.
    """
    path = folder / LOCK
    handle = _opened(path)
    try:
        try:
            while not _held(handle, path):  # whoever held it before has taken its file away
                os.close(handle)
                handle = _opened(path)
        except BlockingIOError as error:
            holder = os.pread(handle, 200, 0).decode(errors="replace").strip() or "unknown"
            raise RunFolderError(
                f"another run is at work in this folder ({' '.join(holder.split())})",
                where=str(folder),
                remedy="wait for it to end, or choose another --out",
            ) from error
        with writing(folder):
            os.ftruncate(handle, 0)
            os.pwrite(handle, f"process {os.getpid()} on {socket.gethostname()}\n".encode(), 0)
        try:
            yield
        finally:
            with contextlib.suppress(OSError):
                path.unlink()
    finally:
        os.close(handle)


def _opened(path: Path) -> int:
    with writing(path.parent):
        path.parent.mkdir(parents=True, exist_ok=True)
        return os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o666)


def _held(handle: int, path: Path) -> bool:
    """Whether the open file is now locked, and still the one that others find.

    Raises:
        BlockingIOError: another process holds it.
    """
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise
    except OSError:  # a file system without locks: better a run without one than none
        return True
    try:
        return os.fstat(handle).st_ino == path.stat().st_ino
    except OSError:
        return False
