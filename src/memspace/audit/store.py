"""A run folder: results written atomically, partial work kept so that an interrupted audit goes on where it stopped."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from memspace.audit.results import SCHEMA, Chapter, Results, chapter_from_dict, chapter_to_dict, clean
from memspace.errors import RunFolderError
from memspace.files import writing, written
from memspace.version import VERSION

__all__ = ["Store", "load_results", "write_table", "write_tensors", "write_text"]

_RESULTS, _STATE, _PARTIAL = "results.json", "state.json", ".partial"

# Units of the columns that have one, written into each table; counts, indices and shares have none.
_UNITS = {
    "train_loss": "nats",
    "self_influence": "nats",
    "loo_loss": "nats",
    "bits": "bits",
    "eigenvalue": "nats",
    "fisher_trace": "nats",
    "influence": "nats",
    "for_suggested_influence": "nats",
    "for_label_influence": "nats",
    "probe_loss": "nats",
    "length": "nats^½",
    "action": "nats per learning-rate time",
    "squared": "nats",
    "single_step_squared": "nats",
    "excess": "nats",
    "leave_one_out_gap": "nats",
}


def write_text(path: Path, text: str) -> None:
    """Write a file whole or not at all.

    Raises:
        OutputError: it cannot be written.
    """
    written(path, lambda p: p.write_text(text, encoding="utf-8"))


def _own(t: Tensor) -> Tensor:
    """On the CPU, with a storage that holds nothing else; a large tensor that is so already is not copied."""
    t = t.detach().cpu().contiguous()
    return t if t.untyped_storage().nbytes() == t.numel() * t.element_size() else t.clone()


def write_table(path: Path, columns: Mapping[str, Any], schema: int = SCHEMA) -> None:
    """Write a Parquet file whole or not at all.

    Raises:
        OutputError: it cannot be written.
    """
    written(path, lambda p: pq.write_table(_table(columns, schema), str(p), compression="zstd"))


def write_tensors(path: Path, tensors: Mapping[str, Tensor]) -> None:
    """Write safetensors whole or not at all.

    Raises:
        OutputError: they cannot be written.
    """
    written(path, lambda p: save_file({k: _own(v) for k, v in tensors.items()}, str(p)))


class Store:
    """The folder of one run.

    Args:
        folder: created if missing.
        key: what the results depend on (fingerprint and settings): partial work under another key is dropped.

    Raises:
        RunFolderError: the folder was written by an incompatible version, or is damaged.
        OutputError: the folder cannot be written.
    """

    def __init__(self, folder: Path, key: Mapping[str, Any], *, fresh: bool = False) -> None:
        self.folder = folder
        self._partial = folder / _PARTIAL
        with writing(folder):
            self._partial.mkdir(parents=True, exist_ok=True)
        wanted = json.loads(json.dumps(clean(dict(key)), sort_keys=True, default=str))
        state = self._read_state()
        self.resumed = state is not None and state.get("key") == wanted and not fresh
        if not self.resumed:
            self.clear_partial()
            with writing(folder):
                self._partial.mkdir(parents=True, exist_ok=True)
            write_text(folder / _STATE, _state(wanted))

    def _read_state(self) -> dict[str, Any] | None:
        path = self.folder / _STATE
        if not path.exists():
            return None
        try:
            state: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
            schema = state["schema"]
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise _damaged(path) from error
        _check_schema(schema, state.get("version"), self.folder)
        return state

    def has(self, stage: str) -> bool:
        """True where the stage's tensors are at hand."""
        return (self._partial / f"{stage}.safetensors").exists()

    def save_tensors(self, stage: str, tensors: Mapping[str, Tensor]) -> None:
        """Keep a stage's tensors."""
        write_tensors(self._partial / f"{stage}.safetensors", tensors)

    def load_tensors(self, stage: str) -> dict[str, Tensor]:
        """A stage's tensors."""
        path = self._partial / f"{stage}.safetensors"
        try:
            return dict(load_file(str(path)))
        except (OSError, SafetensorError) as error:
            raise _damaged(path) from error

    def has_chapter(self, id: str) -> bool:
        """True where the chapter was finished by an earlier, interrupted run."""
        return (self._partial / f"{id}.json").exists()

    def save_chapter(self, chapter: Chapter, tables: Mapping[str, Any]) -> None:
        """Keep a chapter and the tables as they stand after it."""
        content = {"chapter": chapter_to_dict(chapter), "tables": clean(dict(tables))}
        write_text(self._partial / f"{chapter.id}.json", json.dumps(content))

    def load_chapter(self, id: str) -> tuple[Chapter, dict[str, Any]]:
        """A finished chapter, and the tables as they stood after it."""
        path = self._partial / f"{id}.json"
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
            return chapter_from_dict(_readable(content["chapter"])), dict(content["tables"])
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise _damaged(path) from error

    def clear_partial(self) -> None:
        """Drop what was kept for resuming."""
        shutil.rmtree(self._partial, ignore_errors=True)

    def save_results(self, results: Results) -> None:
        """Write results.json and one Parquet file per table."""
        for name, columns in results.tables.items():
            write_table(self.folder / f"{name}.parquet", columns, results.schema)
        content = results.to_dict() | {"tables": sorted(results.tables)}
        write_text(self.folder / _RESULTS, json.dumps(content, indent=1, ensure_ascii=False))
        write_text(self.folder / _STATE, _state(None))
        self.clear_partial()

    def write_report(self, html: str) -> Path:
        """Write report.html; returns its path."""
        path = self.folder / "report.html"
        write_text(path, html)
        return path


def _table(columns: Mapping[str, Any], schema: int) -> pa.Table:
    """A table whose metadata say which schema it follows and, by column, the unit where one is known."""
    known = {name: unit for name in columns if (unit := _UNITS.get(name)) is not None}
    about = {"memspace_schema": str(schema), "memspace_version": VERSION, "units": json.dumps(known)}
    return pa.table(dict(columns)).replace_schema_metadata(about)


def load_results(folder: Path) -> Results:
    """The results a run folder holds, with their tables.

    Raises:
        RunFolderError: no results there, written by an incompatible version, or damaged.
    """
    path = folder / _RESULTS
    if not path.is_file():
        raise RunFolderError(
            "there are no finished results",
            where=str(folder),
            remedy="run `memspace audit` with this --out first",
        )
    try:
        d = json.loads(path.read_text(encoding="utf-8"))
        schema = d["schema"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise _damaged(path) from error
    _check_schema(schema, d.get("version"), folder)
    try:
        names = d["tables"]  # not every Parquet file there: an earlier run may have left others
        tables = {name: pq.read_table(str(folder / f"{name}.parquet")).to_pydict() for name in names}
        return Results.from_dict(d | {"chapters": [_readable(c) for c in d["chapters"]]}, tables)
    except (OSError, KeyError, TypeError, ValueError, pa.ArrowException) as error:
        raise _damaged(folder) from error


def _readable(chapter: dict[str, Any]) -> dict[str, Any]:
    """A stored chapter with what JSON cannot hold put back: an interval with an open end reads as none known."""
    for m in chapter["measurements"]:
        if m["interval"] is not None and None in m["interval"]:
            m["interval"] = None
    return chapter


def _state(key: Any) -> str:
    return json.dumps({"schema": SCHEMA, "version": VERSION, "key": key}, indent=1)


def _check_schema(schema: Any, version: Any, folder: Path) -> None:
    if schema != SCHEMA:
        writer = f" by memspace {version}" if isinstance(version, str) else ""
        raise RunFolderError(
            f"the run was written{writer} with results schema {schema}, memspace {VERSION} reads schema {SCHEMA}",
            where=str(folder),
            remedy="choose another --out, or delete the folder and audit again",
        )


def _damaged(path: Path) -> RunFolderError:
    return RunFolderError(
        "the run folder is damaged",
        where=str(path),
        remedy="delete it and run the audit again, or choose another --out",
    )
