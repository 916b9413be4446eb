"""A store of Parquet files, one a finished piece of work, so that writers never meet.

Every table is a folder, with a file of rows for each piece. A file is written whole under another name and renamed. So
whatever is listed is finished. A packed store has one file a table.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Self

from memspace.errors import RunFolderError
from memspace.files import writing, written
from memspace.frames import polars

if TYPE_CHECKING:
    import polars as pl

__all__ = ["PieceStore"]

TIMES = ("seconds", "machine", "threads", "finished")  # columns that say when and where, not what
# Columns that rows are sorted by, where they are there.
ORDER = ("key", "moment", "transform", "amount", "place", "name")


class PieceStore:
    """Tables of rows in a folder, a file for each piece of work.

    Args:
        folder: created when the first rows are added.
    """

    tables: ClassVar[tuple[str, ...]]  # names, the one that tells what is there first

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)

    def add_rows(self, kind: str, name: str, rows: Sequence[Mapping[str, Any]]) -> None:
        """Write a file of rows, whole or not at all.

        Args:
            kind: of ``tables``.
            name: of the file, unique to this piece of work.
            rows: with the same columns.

        Raises:
            OutputError: the folder cannot be written.
        """
        self._make(kind)
        frame = polars().DataFrame(list(rows), infer_schema_length=None)
        written(self.folder / kind / f"{name}.parquet", partial(_write, frame))

    def _make(self, kind: str) -> None:
        path = self.folder / kind
        with writing(path):
            path.mkdir(parents=True, exist_ok=True)

    def names(self, kind: str) -> set[str]:
        """List the finished files of a kind.

        Args:
            kind: of ``tables``.

        Returns:
            Their names without endings.
        """
        return {path.stem for path in (self.folder / kind).glob("*.parquet")}

    def rows(self, kind: str) -> pl.DataFrame:
        """Read all rows of a kind.

        Args:
            kind: of ``tables``.

        Returns:
            A frame; without columns where nothing is there.

        Raises:
            RunFolderError: a file is damaged.
        """
        frames = polars()
        paths = sorted((self.folder / kind).glob("*.parquet"))
        try:
            parts = [frames.read_parquet(p) for p in paths]
            frame: pl.DataFrame = frames.concat(parts, how="diagonal_relaxed") if parts else frames.DataFrame()
        except (frames.exceptions.PolarsError, OSError) as error:
            what = f"the store's files cannot be read ({str(error).splitlines()[0]})"
            remedy = "delete the damaged file: its network is trained or measured again"
            raise RunFolderError(what, where=str(self.folder / kind), remedy=remedy) from error
        return frame.sort([c for c in ORDER if c in frame.columns])

    def rows_of(self, kind: str, key: str) -> pl.DataFrame:
        """Read the rows of one network.

        Args:
            kind: of ``tables``.
            key: of the network.

        Returns:
            A frame; without columns where nothing is there.
        """
        path = self.folder / kind / f"{key}.parquet"
        if path.is_file():
            frame: pl.DataFrame = polars().read_parquet(path)
            return frame
        frame = self.rows(kind) if self.packed else polars().DataFrame()
        return frame.filter(polars().col("key") == key) if len(frame) else frame

    def version_at(self, kind: str, key: str) -> str:
        """Read by which version of the code and settings the rows of a network were made.

        Args:
            kind: of ``tables``, with a column ``version``.
            key: of the network.

        Returns:
            The version; empty where it has no rows.
        """
        rows = self.rows_of(kind, key)
        return str(rows["version"][0]) if len(rows) else ""

    def keys_at(self, kind: str, version: str) -> set[str]:
        """List the networks whose rows were made by a version.

        Args:
            kind: of ``tables``, with a column ``version``.
            version: of code and settings.

        Returns:
            Their keys.
        """
        rows = self.rows(kind)
        return set(rows.filter(polars().col("version") == version)["key"].to_list()) if len(rows) else set()

    @property
    def packed(self) -> bool:
        """True where all rows of a kind lie in one file."""
        return (self.folder / self.tables[0] / "all.parquet").is_file()

    def digest(self) -> str:
        """Compute a hash of what the store says: networks and all that is known of them, without times.

        Returns:
            SHA-256 in hexadecimal digits; the same for a packed copy.
        """
        content = hashlib.sha256()
        for kind in self.tables:
            frame = self.rows(kind)
            columns = sorted(c for c in frame.columns if c not in TIMES)
            for row in frame.select(columns).iter_rows():
                content.update(json.dumps([kind, *row], default=str).encode())
        return content.hexdigest()

    def pack(self, folder: str | Path) -> Self:
        """Write a copy of all rows, a file a kind, without weights.

        Args:
            folder: where it goes.

        Returns:
            The copy.

        Raises:
            OutputError: the folder cannot be written.
        """
        copy = type(self)(folder)
        for kind in self.tables:
            frame = self.rows(kind)
            if len(frame):
                copy._make(kind)
                written(copy.folder / kind / "all.parquet", partial(_write, frame))
        return copy


def _write(frame: pl.DataFrame, path: Path) -> None:
    frame.write_parquet(path, compression="zstd")
