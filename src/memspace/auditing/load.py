"""Reading a finished run: files of one run, unchanged and of bounded size, or one sentence."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from memspace.auditing.ownership import RESULTS, changed, check_schema, damaged, read_json, read_state
from memspace.auditing.results import Results
from memspace.errors import RunFolderError

__all__ = ["load_results"]

CELLS, BYTES = 2**25, 2**31  # of a table: what this many take in memory is a few gibibytes


def load_results(folder: Path) -> Results:
    """Load the results of a run folder, with their tables.

    Args:
        folder: of a finished run.

    Returns:
        the results.

    Raises:
        RunFolderError: no results there, written by an incompatible version, damaged, changed since they were written,
            or of two runs.
    """
    path = folder / RESULTS
    if not path.is_file():
        raise RunFolderError(
            "there are no finished results",
            where=str(folder),
            remedy="run `memspace audit` with this --out first",
        )
    content = read_json(path)
    check_schema(content["schema"], content.get("version"), folder)
    state = read_state(folder)
    files = {} if state is None else state["files"]
    if changed(folder, files, RESULTS):
        raise _changed(path)
    try:
        names = _names(content.get("tables"))
        results = Results.from_dict(content)
    except (ValueError, RecursionError) as error:
        raise damaged(path, " ".join(str(error).split())[:200]) from error
    tables = {}
    for name in names:  # not every Parquet file there: an earlier run may have left others
        table = folder / f"{name}.parquet"
        if changed(folder, files, table.name):
            raise _changed(table)
        tables[name] = _table(table, results.created)
    return Results(**{**results.__dict__, "tables": tables})


def _names(listed: Any) -> list[str]:
    if not isinstance(listed, list) or not all(isinstance(n, str) and re.fullmatch(r"[\w-]{1,60}", n) for n in listed):
        raise ValueError("tables is not a list of names")
    return listed


def _table(path: Path, run: str) -> dict[str, Any]:
    try:
        with pq.ParquetFile(str(path)) as file:
            about = file.metadata
            groups = (about.row_group(k).total_byte_size for k in range(about.num_row_groups))
            if about.num_rows * about.num_columns > CELLS or sum(groups) > BYTES:
                raise damaged(path, f"a table of {about.num_rows:,} rows is larger than any run writes")
            of = (file.schema_arrow.metadata or {}).get(b"memspace_run")
            if of is not None and of.decode(errors="replace") != run:
                raise _changed(path)
            words = [
                f.name for f in file.schema_arrow if pa.types.is_string(f.type) or pa.types.is_large_string(f.type)
            ]
        table = pq.read_table(str(path), read_dictionary=words)
        if any(_length(column) > BYTES for column in table.columns):
            raise damaged(path, "its texts are longer than any run writes")
        return dict(table.to_pydict())
    except (OSError, KeyError, TypeError, ValueError, OverflowError, pa.ArrowException) as error:
        raise damaged(path) from error


def _length(column: pa.ChunkedArray) -> int:
    """Bytes of a column of repeated words once each is written out, at most; 0 of any other."""
    longest = [
        pc.max(pc.binary_length(chunk.dictionary)).as_py() or 0
        for chunk in column.chunks
        if pa.types.is_dictionary(chunk.type)
    ]
    return max(longest, default=0) * len(column)


def _changed(path: Path) -> RunFolderError:
    return RunFolderError(
        f"the run folder is damaged: {path.name} is of another run, or was changed since it was written",
        where=str(path),
        remedy="run the audit again, or delete state.json to read the files as they are",
    )
