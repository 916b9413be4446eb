"""A run folder: results written atomically, partial work stored so that an interrupted audit resumes."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from memspace.auditing.decode import decode
from memspace.auditing.load import load_results
from memspace.auditing.ownership import (
    PARTIAL,
    REPORT,
    RESULTS,
    STATE,
    damaged,
    read_state,
    refuse_foreign,
    refuse_foreign_tables,
)
from memspace.auditing.results import SCHEMA, Chapter, Results, chapter_to_dict, check_consistent, clean
from memspace.files import digest_of, writing, written, written_together
from memspace.measures.declaration import units_of_columns
from memspace.passes.example_by_example import PLAINEST
from memspace.version import VERSION

__all__ = ["Store", "load_results", "write_table", "write_tensors", "write_text"]

WAYS = "ways.json"  # how modules are read, where a pass showed that some were read wrongly
HELD_OUT = "held-out"  # the stage of refits, which does not depend on how this network is read
ROUNDING = 1e-4  # of outputs on the probe: far above float32's rounding, far below a change of the forward


def write_text(path: Path, text: str) -> None:
    """Write a text file whole or not at all.

    Args:
        path: of the file.
        text: its content.

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

    Args:
        path: of the file.
        columns: name → sequence.
        schema: of the run's results.

    Raises:
        OutputError: it cannot be written.
    """
    written(path, lambda p: pq.write_table(_table(columns, schema), str(p), compression="zstd"))


def write_tensors(path: Path, tensors: Mapping[str, Tensor]) -> None:
    """Write a safetensors file whole or not at all.

    Args:
        path: of the file.
        tensors: by name.

    Raises:
        OutputError: they cannot be written.
    """
    written(path, lambda p: save_file({k: _own(v) for k, v in tensors.items()}, str(p)))


class Store:
    """The folder of one run.

    Args:
        folder: created if missing.
        key: what the results depend on (see ``memspace.auditing.key``): partial work under another key is dropped.
        fresh: whether partial work is dropped in any case.

    Raises:
        RunFolderError: the folder was written by an incompatible version, is damaged, or contains files of
            others that a run would overwrite.
        OutputError: the folder cannot be written.
    """

    def __init__(self, folder: Path, key: Mapping[str, Any], *, fresh: bool = False) -> None:
        self.folder = folder
        self.ways: Callable[[], Mapping[str, Any]] | None = None  # stored with every stage and chapter, where set
        self._partial = folder / PARTIAL
        with writing(folder):
            folder.mkdir(parents=True, exist_ok=True)
        state = read_state(folder)
        refuse_foreign(folder, marked=state is not None)
        self._files: dict[str, str] = {} if state is None else state["files"]
        self._key = json.loads(json.dumps(clean(dict(key)), sort_keys=True, default=str))
        self.resumed = state is not None and _same(state["key"], self._key) and not fresh
        if not self.resumed:
            write_text(folder / STATE, _state(self._key, self._files))  # the mark comes before the files it marks
            self.clear_partial()
        with writing(folder):
            self._partial.mkdir(exist_ok=True)

    def has(self, stage: str) -> bool:
        """Return whether the stage's tensors are stored.

        Args:
            stage: its name.

        Returns:
            True where they are.
        """
        return (self._partial / f"{stage}.safetensors").exists()

    def save_tensors(self, stage: str, tensors: Mapping[str, Tensor]) -> None:
        """Store a stage's tensors.

        Args:
            stage: its name.
            tensors: by name.

        Raises:
            OutputError: they cannot be written.
        """
        self._keep_ways()
        write_tensors(self._partial / f"{stage}.safetensors", tensors)

    def load_tensors(self, stage: str) -> dict[str, Tensor]:
        """Load a stage's tensors.

        Args:
            stage: its name.

        Returns:
            name → tensor.

        Raises:
            RunFolderError: the file is damaged.
        """
        path = self._partial / f"{stage}.safetensors"
        try:
            return dict(load_file(str(path)))
        except (OSError, SafetensorError) as error:
            raise damaged(path) from error

    def has_chapter(self, id: str) -> bool:
        """Return whether an earlier, interrupted run finished the chapter.

        Args:
            id: of the chapter.

        Returns:
            True where it is stored.
        """
        return (self._partial / f"{id}.json").exists()

    def save_chapter(self, chapter: Chapter, tables: Mapping[str, Any]) -> None:
        """Store a chapter and its tables.

        Args:
            chapter: finished.
            tables: as they are after it.

        Raises:
            OutputError: they cannot be written.
        """
        self._keep_ways()
        content = {"chapter": chapter_to_dict(chapter), "tables": clean(dict(tables))}
        write_text(self._partial / f"{chapter.id}.json", json.dumps(content))

    def load_chapter(self, id: str) -> tuple[Chapter, dict[str, Any]]:
        """Load a finished chapter and its tables.

        Args:
            id: of the chapter.

        Returns:
            the chapter, and the tables as they were after it.

        Raises:
            RunFolderError: the file is damaged.
        """
        path = self._partial / f"{id}.json"
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
            chapter, tables = decode(Chapter, content["chapter"], "chapter"), dict(content["tables"])
            check_consistent([chapter])
            return chapter, tables
        except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
            raise damaged(path) from error

    def _keep_ways(self) -> None:
        # Before the stage itself: an interruption between the two must not leave a stage of unknown ways.
        if self.ways is not None:
            write_text(self._partial / WAYS, json.dumps(self.ways()))

    def load_ways(self) -> dict[str, Any] | None:
        """Load how an interrupted run computed gradients, as its ``ways`` stated.

        Returns:
            ``manner`` and ``refuted``; None where it computed none.

        Raises:
            RunFolderError: the file is damaged.
        """
        path = self._partial / WAYS
        if not path.exists():
            return None
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError, RecursionError) as error:
            raise damaged(path) from error
        known = isinstance(content, dict) and isinstance(content.get("refuted"), list)
        if not known or type(content.get("manner")) is not int or not 0 <= content["manner"] <= PLAINEST:
            raise damaged(path)
        return dict(content)

    def drop_readings(self) -> None:
        """Remove the stages and chapters that depend on how gradients were computed."""
        with writing(self._partial):
            for path in self._partial.iterdir():
                if path.name != f"{HELD_OUT}.safetensors":
                    path.unlink()

    def clear_partial(self) -> None:
        """Remove what was stored for resuming."""
        shutil.rmtree(self._partial, ignore_errors=True)

    def save_results(self, results: Results, page: str | None = None) -> None:
        """Write results.json, one Parquet file per table and, where given, report.html: all of them or none.

        What was stored for resuming is removed once all is written.

        Args:
            results: with their tables.
            page: the report; None: it is not written.

        Raises:
            RunFolderError: a table would overwrite a file that is not memspace's.
            OutputError: they cannot be written.
        """
        refuse_foreign_tables(self.folder, list(results.tables), self._files)
        content = results.to_dict() | {"tables": sorted(results.tables)}
        text = json.dumps(content, indent=1, ensure_ascii=False)
        files: dict[Path, Callable[[Path], Any]] = {
            self.folder / f"{name}.parquet": partial(_write_table, columns=columns, results=results)
            for name, columns in results.tables.items()
        }
        files[self.folder / RESULTS] = partial(_write_text, text=text)
        if page is not None:
            files[self.folder / REPORT] = partial(_write_text, text=page)
        written_together(files)
        # The page can be made again from the results: it is not one of the files that belong together.
        self._files = {path.name: digest_of(path) for path in files if path.name != REPORT}
        write_text(self.folder / STATE, _state(None, self._files))
        self.clear_partial()

    def write_report(self, html: str) -> Path:
        """Write report.html.

        Args:
            html: the page.

        Returns:
            its path.

        Raises:
            OutputError: it cannot be written.
        """
        path = self.folder / "report.html"
        write_text(path, html)
        return path


def _write_table(path: Path, columns: Mapping[str, Any], results: Results) -> None:
    pq.write_table(_table(columns, results.schema, results.created), str(path), compression="zstd")


def _write_text(path: Path, text: str) -> None:
    path.write_text(text, encoding="utf-8")


def _table(columns: Mapping[str, Any], schema: int, run: str = "") -> pa.Table:
    """A table whose metadata say which schema and run it belongs to and, by column, the unit where one is known."""
    from memspace.auditing.chapter import declared_chapters  # as they are imported, chapters declare their tables

    declared_chapters()
    units = units_of_columns()
    known = {name: units[name] for name in columns if name in units}
    about = {"memspace_schema": str(schema), "memspace_version": VERSION, "units": json.dumps(known)}
    return pa.table(dict(columns)).replace_schema_metadata(about | ({"memspace_run": run} if run else {}))


def _state(key: Any, files: Mapping[str, str]) -> str:
    return json.dumps({"schema": SCHEMA, "version": VERSION, "key": key, "files": dict(files)}, indent=1)


def _same(kept: Any, wanted: Any) -> bool:
    """Whether two keys are equal; numbers that were computed may differ by rounding (other threads, another order)."""
    if isinstance(wanted, dict):
        return isinstance(kept, dict) and kept.keys() == wanted.keys() and all(_same(kept[k], wanted[k]) for k in kept)
    if isinstance(wanted, list):
        return isinstance(kept, list) and len(kept) == len(wanted) and all(map(_same, kept, wanted))
    if isinstance(wanted, float) and isinstance(kept, float):
        return math.isclose(kept, wanted, rel_tol=ROUNDING, abs_tol=ROUNDING)
    return type(kept) is type(wanted) and bool(kept == wanted)
