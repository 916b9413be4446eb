"""The store of a zoo as tables that claims are judged on: networks, layers, and what further stages have added."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from memspace.errors import DataError
from memspace.frames import polars
from memspace.zoo.counts.plateau import plateaus
from memspace.zoo.stages.layers import layer_table
from memspace.zoo.stages.nuisance import nuisance_table
from memspace.zoo.store import TABLES, ZooStore

if TYPE_CHECKING:
    import polars as pl

__all__ = ["SPECIFICATION", "ZooResults", "is_zoo"]

# Columns of a network that every table of a store is given.
SPECIFICATION = (
    "key", "zoo", "block", "configuration", "family", "data", "width", "depth", "rate", "batch", "decay", "dropout",
    "label_noise", "size", "optimiser", "seed", "start", "permuted", "parameters", "fitted",
)  # fmt: skip
RESULTS = tuple(t for t in TABLES if t != "trained")


def is_zoo(folder: str | Path) -> bool:
    """Tell whether a folder is the store of a zoo.

    Args:
        folder: of results.

    Returns:
        True where networks of a zoo are kept in it.
    """
    return (Path(folder) / "trained").is_dir()


class ZooResults:
    """Tables of one or several stores, each a row of ``networks`` at every moment of training.

    Args:
        stores: whose networks are looked at together.
    """

    def __init__(self, stores: Sequence[ZooStore]) -> None:
        self.stores = tuple(stores)

    def table(self, name: str = "networks") -> pl.DataFrame:
        """Read a table.

        ``networks`` has a row a network and moment. Outcomes in it are those at the end: ``train_loss``, ``test_loss``,
        ``gap_loss`` (test less training), ``train_accuracy``, ``test_accuracy``, ``gap_accuracy`` (training less test).
        ``loss_then`` is the training loss at the moment and ``slope_then`` its fall over the later half of the steps
        before. There is a column for each measure, taken at the moment.

        Args:
            name: ``networks``; or a stage whose rows are wanted, with the specification of their network, and for
                ``memory`` with outcomes and measures at the end; or ``plateau``, a row an architecture of what the
                stage ``capacity`` counted.

        Returns:
            The table.

        Raises:
            DataError: the stores have no such table.
        """
        if name == "plateau":
            return plateaus(self.table("capacity"))
        frames = [_networks(s) if name == "networks" else _joined(s, name) for s in self.stores]
        filled = [f for f in frames if f is not None and len(f)]
        if not filled:
            where = ", ".join(str(s.folder) for s in self.stores)
            raise DataError(f"the store has no table {name!r}", where=where, remedy="run the zoo's stages first")
        table: pl.DataFrame = polars().concat(filled, how="diagonal_relaxed")
        return table

    def has_results(self, population: Any) -> bool:
        """Tell whether networks of a population have outcomes, measurements or rows of a later stage.

        Args:
            population: of a claim; its ``select`` chooses rows by specification.

        Returns:
            True where their outcome could be known. Training losses are no results, nor is anything of a table that
            no zoo has.
        """
        if population.table not in ("networks", "plateau", *RESULTS):
            return False
        for store in self.stores:
            trained = store.rows("trained")
            if not len(trained):
                continue
            specification = _specification(store).with_columns(moment=polars().lit(population.moment))
            keys = set(population.select(specification)["key"].to_list())
            if store.has_results(keys):
                return True
        return False

    def digest(self) -> str:
        """Compute a hash of what the stores say.

        Returns:
            Hexadecimal digits; of several stores one after the other.
        """
        return "-".join(s.digest() for s in self.stores)


def _specification(store: ZooStore) -> pl.DataFrame:
    trained = store.rows("trained").rename({"reached": "fitted"})
    return trained.select([c for c in SPECIFICATION if c in trained.columns])


def _networks(store: ZooStore) -> pl.DataFrame | None:
    column = polars().col
    trained, outcomes = store.rows("trained"), store.rows("outcomes")
    if not len(trained) or not len(outcomes):
        return None
    ends = outcomes.filter(column("moment") == 1.0).drop("moment", "share_of_steps")
    gaps = ends.with_columns(
        gap_loss=column("test_loss") - column("train_loss"),
        gap_accuracy=column("train_accuracy") - column("test_accuracy"),
    )
    table = _specification(store).join(gaps, on="key", how="inner").join(_curves(trained, outcomes), on="key")
    table = table.with_columns(log_parameters=column("parameters").log())
    measured = store.rows("measured")
    if not len(measured):
        return table
    present = measured.filter(column("value").is_not_null())
    wide = present.pivot("name", index=["key", "moment"], values="value")
    return table.join(wide, on=["key", "moment"], how="left")


def _memory(store: ZooStore) -> pl.DataFrame:
    """The rows of the stage ``memory``, with outcomes and measures at the end of training."""
    rows, networks = store.rows("memory"), _networks(store)
    if networks is None or not len(rows):
        return rows
    ends = networks.filter(polars().col("moment") == 1.0)
    known = (*SPECIFICATION, *rows.columns)
    return rows.join(ends.select("key", *(c for c in ends.columns if c not in known)), on="key", how="left")


def _curves(trained: pl.DataFrame, outcomes: pl.DataFrame) -> pl.DataFrame:
    """What the loss curve told at each moment."""
    curves = {r["key"]: r for r in trained.select("key", "curve_steps", "curve_losses").iter_rows(named=True)}
    rows = []
    for row in outcomes.iter_rows(named=True):
        curve = curves.get(row["key"])
        if curve is not None:
            steps, losses = curve["curve_steps"], curve["curve_losses"]
            end = steps[-1] * row["share_of_steps"]
            then = _at(steps, losses, end)
            slope = _at(steps, losses, end / 2) - then
            rows.append({"key": row["key"], "moment": row["moment"], "loss_then": then, "slope_then": slope})
    return polars().DataFrame(rows)  # type: ignore[no-any-return]


ARRANGED = {"layer_costs": layer_table, "nuisance": nuisance_table, "memory": _memory}


def _at(steps: Sequence[float], losses: Sequence[float], step: float) -> float:
    """The training loss at a step, on straight lines between the looks."""
    import numpy as np

    return float(np.interp(step, steps, losses))


def _joined(store: ZooStore, name: str) -> pl.DataFrame | None:
    if name not in RESULTS:
        return None
    rows = ARRANGED[name](store) if name in ARRANGED else store.rows(name)
    if not len(rows):
        return None
    specification = _specification(store)
    twice = [c for c in rows.columns if c in specification.columns and c != "key"]  # a layer's parameters, for example
    return specification.drop(twice).join(rows, on="key", how="inner")
