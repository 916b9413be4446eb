"""A study's files: one Parquet file per table, and JSON."""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from memspace.auditing.results import clean
from memspace.auditing.store import write_text
from memspace.files import written
from memspace.version import VERSION

__all__ = ["write_study"]

UNITS = {"loss": "nats", "margin": "nats", "effect": "nats"}


def write_study(folder: Path, content: Mapping[str, Any], tables: Mapping[str, Mapping[str, Any]]) -> None:
    """Write ``retrain.json`` and the tables, each file whole or not at all.

    Args:
        folder: where they go.
        content: of the JSON file.
        tables: columns by name, a Parquet file each.

    Raises:
        OutputError: the folder cannot be written.
    """
    for name, columns in tables.items():
        about = {
            "memspace_version": VERSION,
            "units": json.dumps({c: UNITS[c] for c in columns if c in UNITS}),
        }
        path = folder / f"{name}.parquet"
        table = pa.table(dict(columns)).replace_schema_metadata(about)
        written(path, partial(pq.write_table, table, compression="zstd"))
    write_text(folder / "retrain.json", json.dumps(clean(dict(content)), indent=1, ensure_ascii=False))
