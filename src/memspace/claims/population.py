"""Which rows of a store a claim is about."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from memspace.arguments import check_fields
from memspace.errors import DataError, SettingsError

if TYPE_CHECKING:
    import polars as pl

__all__ = ["Population", "Setting"]

Setting = str | bool | int | float


@dataclass(frozen=True)
class Population:
    """The networks of a claim, as rows of a table of a store.

    Args:
        families: architecture families; column ``family``.
        zoo: name of the zoo; column ``zoo``, not looked at where empty.
        table: name of the table.
        fitted: only networks that reached their training loss; column ``fitted``.
        moment: share of the training at which measures were taken; column ``moment``, not looked at where None.
        where: further columns, each with the values that count.

    Raises:
        SettingsError: there is no family, or a field is of the wrong type.
    """

    families: tuple[str, ...]
    zoo: str = ""
    table: str = "networks"
    fitted: bool = False
    moment: float | None = None
    where: Mapping[str, tuple[Setting, ...]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        check_fields(self, besides=("where",))
        if not self.families:
            raise SettingsError("no family is named", where="population.families", remedy="name at least one")

    def select(self, table: pl.DataFrame) -> pl.DataFrame:
        """Choose the rows.

        Args:
            table: of the store.

        Returns:
            The rows of the population.

        Raises:
            DataError: a column is missing, or holds values of another type.
        """
        import polars as pl

        wanted: dict[str, tuple[Setting, ...]] = {"family": self.families, **self.where}
        if self.zoo:
            wanted["zoo"] = (self.zoo,)
        if self.fitted:
            wanted["fitted"] = (True,)
        if self.moment is not None:
            wanted["moment"] = (self.moment,)
        for column, values in wanted.items():
            if column not in table.columns:
                raise DataError(
                    f"the table {self.table!r} has no column {column!r}",
                    where="population",
                    remedy=f"it has {', '.join(table.columns[:20])}",
                )
            try:
                table = table.filter(pl.col(column).is_in(list(values)))
            except (pl.exceptions.PolarsError, TypeError) as error:
                raise DataError(
                    f"the column {column!r} does not hold values such as {values[0]!r}",
                    where="population",
                    remedy="compare the registration with the table",
                ) from error
        return table
