"""Where the rows of networks come from: a protocol, and a folder of Parquet files that keeps it."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from memspace.claims.population import Population
from memspace.errors import DataError, MissingPackageError
from memspace.files import digest_of

if TYPE_CHECKING:
    import polars as pl

__all__ = ["ParquetStore", "ResultsStore"]


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
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)

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
        try:
            import polars as pl
        except ImportError:
            raise MissingPackageError(
                "tables of networks need polars, which is not installed",
                where="memspace claims",
                remedy="pip install 'memspace[zoo]'",
            ) from None
        path = self.folder / f"{name}.parquet"
        if name != Path(name).name or not path.is_file():
            raise DataError(f"the store has no table {name!r}", where=str(self.folder), remedy="choose another --store")
        try:
            return pl.read_parquet(path)
        except (pl.exceptions.PolarsError, OSError) as error:
            reason = str(error).splitlines()[0][:100]
            raise DataError(f"the table cannot be read: {reason}", where=str(path), remedy="write it again") from error

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
        for path in sorted(self.folder.glob("*.parquet")):
            total.update(f"{path.name} {digest_of(path)}\n".encode())
        return total.hexdigest()
