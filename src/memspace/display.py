"""How results show themselves: as a table where they are printed, in a notebook, and as pandas frames.

A result class derives from :class:`Shown` and says at most three things: its title, its quantities (by default what is
in its fields ``measurements`` and ``unmeasured``) and its further tables, each by name and made when asked for.
"""

from __future__ import annotations

import html
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol

from memspace.errors import MissingPackageError, SettingsError
from memspace.format import printable

if TYPE_CHECKING:
    import pandas

__all__ = ["Columns", "Quantity", "Shown"]

HEADS = ("quantity", "value", "95% interval", "unit", "")
QUANTITIES = "quantities"  # the name of the table of measurements
WIDEST = 70  # characters of a cell

Columns = Mapping[str, Sequence[Any]]


class Quantity(Protocol):
    """A row of a table of results: a measurement, or why there is none."""

    def cells(self) -> tuple[str, str, str, str, str]:
        """Give name, value, 95% interval, unit and remark, as people read them.

        Returns:
            Five strings.
        """

    def record(self) -> dict[str, Any]:
        """Give the same as plain values, for a data frame.

        Returns:
            Values by column.
        """


class Shown:
    """A result that prints as a table, gives pandas frames and shows itself in a notebook."""

    def frame(self, table: str = QUANTITIES) -> pandas.DataFrame:
        """Give a table of the result as a pandas frame.

        Args:
            table: ``quantities``, a row a measurement (``value``, ``low`` and ``high`` of the 95% interval, ``unit``,
                ``estimator``, ``n``, ``reliable``, ``note``); or one of the tables that ``print(result)`` names.

        Returns:
            the frame; what was not measured is a row without a value, its reason in ``note``.

        Raises:
            MissingPackageError: pandas is not installed.
            SettingsError: the result has no table of that name.
        """
        made = self._tables()
        if table != QUANTITIES and table not in made:
            known = ", ".join((QUANTITIES, *made))
            where = f"{type(self).__name__}.frame"
            raise SettingsError(f"there is no table {table!r}", where=where, remedy=f"give one of {known}")
        try:
            import pandas
        except ImportError:
            raise MissingPackageError(
                "data frames need pandas, which is not installed",
                where=f"{type(self).__name__}.frame",
                remedy="pip install 'memspace[pandas]'",
            ) from None
        if table == QUANTITIES:
            return pandas.DataFrame.from_records([q.record() for q in self._quantities()])
        return pandas.DataFrame({name: list(column) for name, column in made[table]().items()})

    def _title(self) -> str:
        """Give the line above the table; nothing by default."""
        return ""

    def _quantities(self) -> Sequence[Quantity]:
        """Give the rows of the table."""
        return (*getattr(self, "measurements", ()), *getattr(self, "unmeasured", ()))

    def _tables(self) -> Mapping[str, Callable[[], Columns]]:
        """Give further tables by name, each made when called."""
        return {}

    def _others(self) -> str:
        """Give the sentence that names the further tables."""
        names = ", ".join(f".frame({name!r})" for name in self._tables())
        return f"More: {names}" if names else ""

    def __str__(self) -> str:
        rows = [tuple(printable(c, one_line=True) for c in q.cells()) for q in self._quantities()]
        parts = (printable(self._title()), _text(rows) if rows else "", self._others())
        return "\n".join(part for part in parts if part) or type(self).__name__

    def __repr__(self) -> str:
        return str(self)

    def _repr_html_(self) -> str:
        """Give the table as HTML, for notebooks."""
        rows = [tuple(printable(c, one_line=True) for c in q.cells()) for q in self._quantities()]
        title, others = (f"<p>{html.escape(t)}</p>" if t else "" for t in (printable(self._title()), self._others()))
        return title + (_html(rows) if rows else "") + others


def _shown_heads(rows: Sequence[Sequence[str]]) -> list[int]:
    """The columns in which anything stands."""
    return [k for k in range(len(HEADS)) if any(row[k] for row in rows)]


def _text(rows: Sequence[Sequence[str]]) -> str:
    """Rows in columns of equal width; numbers to the left, as their digits differ."""
    columns = _shown_heads(rows)
    table = [[HEADS[k] for k in columns], *([row[k] for k in columns] for row in rows)]
    widths = [min(WIDEST, max(len(row[k]) for row in table)) for k in range(len(columns))]
    return "\n".join("  ".join(c.ljust(w) for c, w in zip(row, widths, strict=True)).rstrip() for row in table)


def _html(rows: Sequence[Sequence[str]]) -> str:
    columns = _shown_heads(rows)
    head = "".join(f"<th>{html.escape(HEADS[k])}</th>" for k in columns)
    body = ("".join(f"<td>{html.escape(row[k])}</td>" for k in columns) for row in rows)
    return f"<table><thead><tr>{head}</tr></thead><tbody>{''.join(f'<tr>{r}</tr>' for r in body)}</tbody></table>"
