"""Where the rows of networks come from: a protocol, folders of Parquet files, and several stores looked at as one."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from memspace.claims.population import Population
from memspace.errors import DataError
from memspace.files import digest_of
from memspace.frames import polars

if TYPE_CHECKING:
    import polars as pl

__all__ = ["JoinedStores", "ParquetStore", "ResultsStore", "holding"]


class ResultsStore(Protocol):
    """A store of networks' results."""

    def table(self, name: str = "networks") -> pl.DataFrame:
        """Read a table.

        Args:
            name: of the table; ``networks`` has one row a network.

        Returns:
            The table.
        """

    def has_results(self, population: Population) -> bool:
        """Tell whether any network of a population has results.

        Args:
            population: of a claim.

        Returns:
            Whether its outcome could be known.
        """

    def digest(self) -> str:
        """Compute what changes as soon as any result does.

        Returns:
            Hexadecimal digits.
        """


class ParquetStore:
    """A folder with a Parquet file for each table: ``networks.parquet`` and others.

    Args:
        folder: need not exist yet: it then holds no results.
        only: name of the one table that its digest is of; empty: all.
    """

    def __init__(self, folder: str | Path, only: str = "") -> None:
        self.folder = Path(folder)
        self.only = only

    def table(self, name: str = "networks") -> pl.DataFrame:
        """Read a table.

        Args:
            name: of the file, without its ending.

        Returns:
            The table.

        Raises:
            MissingPackageError: polars is not installed.
            DataError: it is not there, or no Parquet file.
        """
        frames = polars()
        path = self.folder / f"{name}.parquet"
        if name != Path(name).name or not path.is_file():
            raise DataError(f"the store has no table {name!r}", where=str(self.folder), remedy="choose another --store")
        try:
            table: pl.DataFrame = frames.read_parquet(path)
        except (frames.exceptions.PolarsError, OSError) as error:
            reason = str(error).splitlines()[0][:100]
            raise DataError(f"the table cannot be read: {reason}", where=str(path), remedy="write it again") from error
        return table

    def has_results(self, population: Population) -> bool:
        """Tell whether the population's table has a row of its.

        Args:
            population: of a claim.

        Returns:
            False where there is no table.
        """
        if not (self.folder / f"{population.table}.parquet").is_file():
            return False
        return population.select(self.table(population.table)).height > 0

    def digest(self) -> str:
        """Compute the SHA-256 of the files' names and contents.

        Returns:
            Hexadecimal digits.
        """
        total = hashlib.sha256()
        for path in sorted(self.folder.glob(f"{self.only or '*'}.parquet")):
            total.update(f"{path.name} {digest_of(path)}\n".encode())
        return total.hexdigest()


class JoinedStores:
    """Several stores looked at as one: a table is that of the one store that has it.

    Args:
        stores: in the order in which they were given.
    """

    def __init__(self, stores: Sequence[ResultsStore]) -> None:
        self.stores = tuple(stores)
        self._holding: dict[str, ResultsStore] = {}

    def holding(self, name: str) -> ResultsStore:
        """Find the store that has a table.

        Args:
            name: of the table.

        Returns:
            The store.

        Raises:
            DataError: none has it, or more than one.
        """
        if name not in self._holding:
            self._holding[name] = self._look_for(name)
        return self._holding[name]

    def _look_for(self, name: str) -> ResultsStore:
        reasons, holders = [], []
        for store in self.stores:
            try:
                store.table(name)
            except DataError as error:
                reasons.append(f"{error.what} ({error.where})")
            else:
                holders.append(store)
        if len(holders) == 1:
            return holders[0]
        what = f"{len(holders)} stores have a table {name!r}" if holders else "; ".join(reasons)
        raise DataError(what, where="the stores together", remedy="name the one that the claims are about")

    def table(self, name: str = "networks") -> pl.DataFrame:
        """Read a table of the store that has it.

        Args:
            name: of the table.

        Returns:
            The table.

        Raises:
            DataError: none has it, or more than one.
        """
        return self.holding(name).table(name)

    def has_results(self, population: Population) -> bool:
        """Tell whether any of the stores has results of a population.

        Args:
            population: of a claim.

        Returns:
            True where one has.
        """
        return any(store.has_results(population) for store in self.stores)

    def digest(self) -> str:
        """Compute the SHA-256 of the stores' digests.

        Returns:
            Hexadecimal digits.
        """
        return hashlib.sha256(" ".join(store.digest() for store in self.stores).encode()).hexdigest()


def holding(store: ResultsStore, name: str) -> ResultsStore:
    """Choose what a claim reads of a store: a verdict rests on the digest of that alone.

    Args:
        store: one or several.
        name: of the claim's table.

    Returns:
        Of several stores the one that has the table; else the store itself. Of a folder of files that table alone.

    Raises:
        DataError: none of several has it, or more than one.
    """
    one = store.holding(name) if isinstance(store, JoinedStores) else store
    return ParquetStore(one.folder, name) if isinstance(one, ParquetStore) else one
