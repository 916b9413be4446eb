"""Files of a run folder that memspace wrote: the rest is never overwritten, removed or followed.

``state.json`` is the mark of a run folder. It says what is being computed (``key``), and of what was finished the
digest of every file, so that files of two runs, or files changed since, are detected.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from memspace.auditing.results import SCHEMA
from memspace.errors import RunFolderError
from memspace.files import digest_of
from memspace.version import VERSION

__all__ = [
    "PARTIAL",
    "REPORT",
    "RESULTS",
    "STATE",
    "changed",
    "check_schema",
    "damaged",
    "read_state",
    "refuse_foreign",
]

RESULTS, STATE, PARTIAL, REPORT = "results.json", "state.json", ".partial", "report.html"
MOST = 2**28  # bytes of a JSON file that is read


def read_state(folder: Path) -> dict[str, Any] | None:
    """Read the folder's mark.

    Args:
        folder: of a run.

    Returns:
        ``key`` and ``files``; None where there is no mark.

    Raises:
        RunFolderError: the mark is damaged, or of an incompatible version.
    """
    path = folder / STATE
    if not path.exists() and not path.is_symlink():
        return None
    content = read_json(path)
    check_schema(content.get("schema"), content.get("version"), folder)
    files = content.get("files") or {}
    if not isinstance(files, dict):
        raise damaged(path)
    return {"key": content.get("key"), "files": files}


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object with a schema; NaN and infinity are not JSON.

    Args:
        path: of the file.

    Returns:
        the object.

    Raises:
        RunFolderError: the file is damaged.
    """
    try:
        if path.stat().st_size > MOST:
            raise damaged(path)
        content = json.loads(path.read_text(encoding="utf-8"), parse_constant=_refused)
    except (OSError, ValueError, RecursionError) as error:
        raise damaged(path) from error
    if not isinstance(content, dict) or "schema" not in content:
        raise damaged(path)
    return content


def _refused(word: str) -> None:
    raise ValueError(word)


def refuse_foreign(folder: Path, marked: bool) -> None:
    """Raise where the folder contains something of a name that a run would take, and that no run wrote.

    Args:
        folder: of a run.
        marked: whether the folder has memspace's mark.

    Raises:
        RunFolderError: names the file.
    """
    if (folder / PARTIAL).is_symlink():
        raise _foreign(folder / PARTIAL, "is a link")
    if marked:
        return
    partial = folder / PARTIAL
    if partial.exists() and (not partial.is_dir() or any(partial.iterdir())):
        raise _foreign(partial)
    for path in (folder / RESULTS, folder / REPORT):
        if path.exists() or path.is_symlink():
            raise _foreign(path)


def refuse_foreign_tables(folder: Path, names: list[str], files: dict[str, Any]) -> None:
    """Raise where a table would overwrite a file that no run wrote.

    Args:
        folder: of a run.
        names: of the tables.
        files: name → digest, of the last finished run.

    Raises:
        RunFolderError: names the file.
    """
    for name in names:
        path = folder / f"{name}.parquet"
        if path.name not in files and path.exists() and not _own_table(path):
            raise _foreign(path)


def _own_table(path: Path) -> bool:
    try:
        return b"memspace_schema" in (pq.read_schema(str(path)).metadata or {})
    except Exception:  # whatever is no Parquet file is not ours
        return False


def changed(folder: Path, files: dict[str, Any], name: str) -> bool:
    """Return whether a file differs from the one that the folder's last finished run wrote.

    Args:
        folder: of a run.
        files: name → digest, of the last finished run.
        name: of the file.

    Returns:
        False where its digest is unknown.
    """
    known = files.get(name)
    if known is None:
        return False
    try:
        return bool(digest_of(folder / name) != known)
    except OSError:
        return True


def check_schema(schema: Any, version: Any, folder: Path) -> None:
    """Raise unless the schema is the one this version writes.

    Args:
        schema: as read.
        version: of memspace that wrote it, as read.
        folder: of a run, for the message.

    Raises:
        RunFolderError: names the version that wrote it.
    """
    if type(schema) is not int or schema != SCHEMA:
        writer = f" by memspace {version}" if isinstance(version, str) and len(version) < 40 else ""
        raise RunFolderError(
            f"the run was written{writer} with results schema {str(schema)[:40]}, "
            f"memspace {VERSION} reads schema {SCHEMA}",
            where=str(folder),
            remedy="choose another --out, or delete the folder and audit again",
        )


def damaged(path: Path, reason: str = "") -> RunFolderError:
    """Make the error for a file of a run folder that cannot be read.

    Args:
        path: of the file.
        reason: for people; may be empty.

    Returns:
        the error, not raised.
    """
    return RunFolderError(
        "the run folder is damaged" + (f": {reason}" if reason else ""),
        where=str(path),
        remedy="delete it and run the audit again, or choose another --out",
    )


def _foreign(path: Path, how: str = "was not written by memspace") -> RunFolderError:
    return RunFolderError(
        f"the folder is not a run's: {path.name} {how}",
        where=str(path),
        remedy="choose another --out, or move it away",
    )
