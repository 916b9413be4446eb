"""Outcomes on disk, one file a job, named by what they depend on: a run that is killed goes on where it stopped."""

from __future__ import annotations

import hashlib
import json
import os
from functools import cache
from pathlib import Path
from typing import Any

import memspace
from benchmarks.field.tasks import Job

__all__ = ["Outcomes"]


@cache
def _code() -> str:
    """A digest of memspace and of the trial itself: outcomes of other code are measured anew."""
    digest = hashlib.sha256()
    for folder in (Path(memspace.__file__).parent, Path(__file__).parent):
        for path in sorted(folder.rglob("*.py")):
            digest.update(path.relative_to(folder).as_posix().encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()[:12]


class Outcomes:
    """The outcomes kept under a folder.

    Args:
        any_code: also take outcomes measured by other code, for a table of an earlier run.
    """

    def __init__(self, folder: Path, any_code: bool = False) -> None:
        self._folder, self._any = folder, any_code
        folder.mkdir(parents=True, exist_ok=True)

    def get(self, job: Job) -> dict[str, Any] | None:
        """The outcome of a job, or None."""
        path = self._path(job)
        if path.exists():
            outcome: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
            if self._any or outcome.get("code") == _code():
                return outcome
        return None

    def put(self, job: Job, outcome: dict[str, Any]) -> None:
        """Keep an outcome; the file is there whole or not at all."""
        path = self._path(job)
        draft = path.with_suffix(f".{os.getpid()}")
        draft.write_text(json.dumps(outcome | {"code": _code()}, allow_nan=True), encoding="utf-8")
        draft.replace(path)

    def _path(self, job: Job) -> Path:
        return self._folder / f"{job.name}-{job.key}.json"
