"""``memspace.fragile_measures``: how far measures of a zoo move under small changes of the recipe."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from memspace.claims.store import ResultsStore
from memspace.display import Columns, Shown
from memspace.errors import DataError
from memspace.frames import polars
from memspace.judging.fragility import fragility
from memspace.verbs.judge import measures_in, networks_of, tables_of
from memspace.zoo.changes import moves_of

if TYPE_CHECKING:
    import polars as pl

__all__ = ["FragileMeasures", "fragile_measures"]


@dataclass(frozen=True, repr=False)
class FragileMeasures(Shown):
    """How far measures and their ranks move when the recipe hardly does.

    Args:
        table: a row a measure and change, as :func:`memspace.judging.fragility.fragility` gives it.
        digest: of the store.
    """

    table: pl.DataFrame
    digest: str

    def _title(self) -> str:
        changes = self.table["change"].drop_nulls().n_unique()
        return f"{self.table['measure'].n_unique()} measures under {changes} small changes"

    def _tables(self) -> Mapping[str, Callable[[], Columns]]:
        return {"moved": lambda: self.table.to_dict(as_series=False)}

    def to_dict(self) -> dict[str, Any]:
        """Give plain JSON types.

        Returns:
            A row a measure and change.
        """
        return {"store": self.digest, "moved": self.table.to_dicts()}


def fragile_measures(folder: str | Path, *, measures: Sequence[str] = (), zoo: str = "") -> FragileMeasures:
    """Say how far measures move under a gain on the logits, √2 of the learning rate, twice the width, another seed.

    Args:
        folder: of a zoo's store or of its tables; ``"shipped"``: the tables that the shipped verdicts rest on.
        measures: names; empty: all of the store.
        zoo: name of the declaration whose networks are read; empty: all in the store.

    Returns:
        A row a measure and change: the movement in spreads of the measure, and the share of networks it passes.

    Raises:
        DataError: the store has no networks with measures, or none that differ so little.
    """
    store = tables_of(folder)
    networks = networks_of(store, zoo=zoo)
    names = list(measures) or measures_in(networks)
    missing = [n for n in names if n not in networks.columns]
    if missing:
        raise DataError(f"no network has the measure {missing[0]!r}", where="fragile_measures", remedy="name another")
    moves = moves_of(networks, _changed(store), names)
    if not len(moves):
        remedy = "declare stars that vary rate by 1.414, width by 2, or seeds"
        raise DataError("no two networks differ in one small change", where="fragile_measures", remedy=remedy)
    return FragileMeasures(fragility(moves), store.digest())


def _changed(store: ResultsStore) -> pl.DataFrame | None:
    """The table of networks under changes of their weights, of those that have one."""
    try:
        return store.table("nuisance").filter(polars().col("fitted"))
    except DataError:
        return None
