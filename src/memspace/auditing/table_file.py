"""A table in a file of the user's choice: Parquet or CSV, as the name says."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
from pyarrow import csv

from memspace.auditing.store import write_table
from memspace.errors import OutputError
from memspace.files import written

__all__ = ["save_table", "table_path"]

PARQUET, CSV = (".parquet", ".pq"), ".csv"


def table_path(path: Path | str) -> Path:
    """Check the path of a table to be written.

    Args:
        path: ends in ``.parquet`` or ``.csv``.

    Returns:
        the path.

    Raises:
        OutputError: its name does not end in a kind of table that can be written, or it is a folder.
    """
    path = Path(path)
    if path.is_dir():
        raise OutputError("this is a folder, not a file", where=str(path), remedy="give a file name")
    if path.suffix.lower() not in (*PARQUET, CSV):
        raise OutputError(
            f"no table is written as {path.suffix or 'a file without an ending'}",
            where=str(path),
            remedy="let the name end in .parquet or .csv",
        )
    return path


def save_table(path: Path | str, columns: Mapping[str, Any]) -> None:
    """Write a table whole or not at all: Parquet (with units), or CSV with lists as JSON.

    Args:
        path: ends in ``.parquet`` or ``.csv``.
        columns: name → sequence.

    Raises:
        OutputError: a name of another kind, or a file that cannot be written.
    """
    path = table_path(path)
    if path.suffix.lower() in PARQUET:
        write_table(path, columns)
        return
    table = pa.table(dict(columns))
    for k, column in enumerate(table.columns):
        if pa.types.is_nested(column.type):
            text = [None if v is None else json.dumps(v, ensure_ascii=False) for v in column.to_pylist()]
            table = table.set_column(k, table.column_names[k], pa.array(text, pa.string()))
    written(path, lambda p: csv.write_csv(table, str(p)))
