"""Encoders with all that was measured of them, a row an encoder: the open table, and what claims are judged on."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from memspace.encoders.method import methods
from memspace.encoders.store import MEASURED, TRAINED, EncoderStore
from memspace.errors import DataError
from memspace.frames import polars

if TYPE_CHECKING:
    import polars as pl

__all__ = ["TABLE", "EncoderResults", "encoder_table", "is_encoder_store", "long_table"]

TABLE = "encoders"
# What an encoder is, in this order; ``family`` is its world, as claims call what they ask one by one.
SPECIFICATION = (
    "key", "configuration", "set", "family", "method", "supervised", "strength", "seed", "pooled", "size", "network",
    "width", "latents", "batch", "steps", "rate", "parameters", "fitted", "loss",
)  # fmt: skip
NUMBERS = ("value", "low", "high", "n", "reliable", "null", "null_low", "null_high", "chance")


def is_encoder_store(folder: str | Path) -> bool:
    """Tell whether a folder is a store of encoders.

    Args:
        folder: of results.

    Returns:
        True where encoders are kept in it.
    """
    return (Path(folder) / TRAINED).is_dir()


def long_table(store: EncoderStore) -> pl.DataFrame:
    """Read all measurements, a row each.

    Args:
        store: of the encoders.

    Returns:
        Columns of ``SPECIFICATION``, the time of measuring as ``finished``, then ``name``, ``unit``, ``NUMBERS`` and
        ``note``.

    Raises:
        DataError: nothing is measured.
    """
    trained, measured = store.rows(TRAINED), store.rows(MEASURED)
    if not len(trained) or not len(measured):
        raise DataError("the store has no measured encoders", where=str(store.folder), remedy="run the set first")
    kinds = {name: kind.supervised for name, kind in methods().items()}
    column = polars().col
    specification = trained.rename({"world": "family", "finite": "fitted"}).with_columns(
        supervised=column("method").replace_strict(kinds, default=None, return_dtype=polars().Boolean)
    )
    table: pl.DataFrame = specification.select(SPECIFICATION).join(measured, on="key", how="inner")
    return table.select(*SPECIFICATION, "finished", "name", "unit", *NUMBERS, "note")


def encoder_table(store: EncoderStore) -> pl.DataFrame:
    """Put everything that was measured side by side, a row an encoder.

    Args:
        store: of the encoders.

    Returns:
        Columns of ``SPECIFICATION``, and the time of measuring as ``finished``. Of each number ``NAME``, ``NAME.low``,
        ``NAME.high``, ``NAME.null``, ``NAME.null_low``, ``NAME.null_high``, ``NAME.chance`` and ``NAME.reliable``.
        Columns without a number in any row are left out.

    Raises:
        DataError: nothing is measured.
    """
    long = long_table(store)
    index = [*SPECIFICATION, "finished"]
    wide = long.pivot("name", index=index, values=[n for n in NUMBERS if n != "n"], separator="|")
    names = list(dict.fromkeys(long["name"].to_list()))
    ordered = [(f"{kind}|{name}", name if kind == "value" else f"{name}.{kind}") for name in names for kind in NUMBERS]
    renamed = {old: new for old, new in ordered if old in wide.columns and wide[old].null_count() < len(wide)}
    return wide.select(*index, *renamed).rename(renamed).sort("family", "method", "strength", "seed")


class EncoderResults:
    """The table of a store of encoders, as claims read it.

    Args:
        store: of the encoders.
    """

    def __init__(self, store: EncoderStore) -> None:
        self.store = store

    def table(self, name: str = TABLE) -> pl.DataFrame:
        """Read the table.

        Args:
            name: ``encoders``.

        Returns:
            A row an encoder.

        Raises:
            DataError: the store has no such table.
        """
        if name != TABLE:
            where = str(self.store.folder)
            raise DataError(f"the store has no table {name!r}", where=where, remedy="choose another --store")
        return encoder_table(self.store)

    def has_results(self, population: Any) -> bool:
        """Tell whether encoders of a population are measured. That they are trained is no result.

        Args:
            population: of a claim.

        Returns:
            True where their outcome could be known.
        """
        if population.table != TABLE or not self.store.names(MEASURED):
            return False
        return bool(population.select(encoder_table(self.store)).height)

    def digest(self) -> str:
        """Compute a hash of what the store says.

        Returns:
            Hexadecimal digits.
        """
        return self.store.digest()
