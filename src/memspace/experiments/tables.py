"""A study's files: one Parquet file per table, and JSON."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from memspace.audit.results import clean
from memspace.audit.store import write_text
from memspace.errors import OutputError
from memspace.version import VERSION

__all__ = ["write_study"]

UNITS = {"loss": "nats", "margin": "nats", "effect": "nats"}


def write_study(folder: Path, content: Mapping[str, Any], tables: Mapping[str, Mapping[str, Any]]) -> None:
    """Write ``retrain.json`` and the tables, each file whole or not at all.

    Raises:
        OutputError: the folder cannot be written.
    """
    for name, columns in tables.items():
        about = {
            "memspace_version": VERSION,
            "units": json.dumps({c: UNITS[c] for c in columns if c in UNITS}),
        }
        path = folder / f"{name}.parquet"
        temporary = path.with_suffix(".tmp")
        try:
            table = pa.table(dict(columns)).replace_schema_metadata(about)
            pq.write_table(table, str(temporary), compression="zstd")
            temporary.replace(path)
        except OSError as error:
            raise OutputError(
                f"results cannot be written: {error.strerror or error}",
                where=str(path),
                remedy="free some space or choose another --out; finished networks are kept",
            ) from error
        finally:
            temporary.unlink(missing_ok=True)
    write_text(folder / "retrain.json", json.dumps(clean(dict(content)), indent=1, ensure_ascii=False))
