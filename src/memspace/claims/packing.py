"""The tables that claims are judged on, copied out of stores into one folder: small enough to be given to others."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from memspace.claims.reading import REGISTERED, registrations
from memspace.claims.store import ResultsStore
from memspace.errors import DataError
from memspace.files import writing

if TYPE_CHECKING:
    import polars as pl

__all__ = ["pack_tables"]


def pack_tables(store: ResultsStore, to: str | Path, *, registered: str | Path | None = None) -> dict[str, int]:
    """Write each table that a registered claim reads as one Parquet file; without weights, states and curves.

    A table that is there and not in the store stays as it is.

    Args:
        store: of the networks, or several looked at as one.
        to: folder, created if missing.
        registered: folder of registrations; the package's own unless given.

    Returns:
        Rows by table.

    Raises:
        DataError: the store has none of the tables.
        OutputError: the folder cannot be written.
    """
    folder = Path(to)
    claims = registrations(REGISTERED if registered is None else Path(registered))
    tables: dict[str, pl.DataFrame] = {}
    reasons = []
    for name in sorted({claim.population.table for claim in claims}):
        try:
            tables[name] = store.table(name)
        except DataError as error:
            reasons.append(f"{error.what} ({error.where})")
    if not tables:
        raise DataError("; ".join(reasons[:3]), where="claims pack", remedy="run the zoos' stages first")
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
        for name, table in tables.items():
            table.write_parquet(folder / f"{name}.parquet", compression="zstd", compression_level=19)
    return {name: table.height for name, table in tables.items()}
