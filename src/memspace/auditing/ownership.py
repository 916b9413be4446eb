"""What in a run folder is memspace's own: the rest is never overwritten, removed or followed.

``state.json`` is the mark of a run folder. It says what is being computed (``key``), and of what was finished the
digest of every file, so that files of two runs, or files changed since, are told from those of one run.
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
    """The folder's mark: ``key`` and ``files``; None where it has none.

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
    """A JSON object with a schema; NaN and infinity are no JSON.

    Raises:
        RunFolderError: it is none.
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
    """Raise where the folder holds something of a name that a run would take, and that no run wrote.

    Args:
        marked: whether the folder has memspace's mark.

    Raises:
        RunFolderError: names it.
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
    """Raise where a table would take the place of one that no run wrote.

    Raises:
        RunFolderError: names it.
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
    """Whether a file is not the one that the folder's last finished run wrote, where its digest is known."""
    known = files.get(name)
    if known is None:
        return False
    try:
        return bool(digest_of(folder / name) != known)
    except OSError:
        return True


def check_schema(schema: Any, version: Any, folder: Path) -> None:
    """Raise unless the schema is the one this version writes.

    Raises:
        RunFolderError: says which version wrote it.
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
    """What to raise where a file of a run folder cannot be read."""
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
