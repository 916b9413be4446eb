"""Pairs of networks that differ in one small change of the recipe, as ``memspace.judging.fragility`` reads them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from memspace.frames import polars
from memspace.judging.fragility import COLUMNS
from memspace.zoo.specification import NetworkSpec
from memspace.zoo.store import ZooStore

if TYPE_CHECKING:
    import polars as pl

__all__ = ["CHANGES", "moves_of"]

# What is changed → from one value to a multiple of it, up to a relative tolerance: declarations round √2 to 1.414.
CHANGES = {"rate": ("rate × √2", 2**0.5, 1e-3), "width": ("width × 2", 2.0, 0.0)}
FIELDS = tuple(n for n in NetworkSpec.__dataclass_fields__)


def moves_of(store: ZooStore, measures: Sequence[str]) -> pl.DataFrame:
    """List what a measure is before and after a small change, among networks that reached their training loss.

    Learning rate and width are compared at equal seed and everything else; a seed with the least seed of the same
    recipe; a gain on the logits, of networks that were measured under gains, with the network as it is.

    Args:
        store: with trained and measured networks.
        measures: their names.

    Returns:
        A row a changed network and measure: ``key``, ``base``, ``change`` (``rate × √2``, ``width × 2``, ``seed``,
        ``gain 0.1``, …), ``measure``, ``before``, ``after``; at the end of training.
    """
    frames, column = polars(), polars().col
    networks = store.rows("trained").filter(column("reached")).select("key", *FIELDS)
    pairs = [_multiplied(networks, knob) for knob in CHANGES]
    pairs.append(_reseeded(networks))
    measured = store.rows("measured").filter((column("moment") == 1.0) & column("name").is_in(list(measures)))
    values = measured.select("key", column("name").alias("measure"), "value")
    moves = frames.concat(pairs).join(values.rename({"key": "base", "value": "before"}), on="base")
    moves = moves.join(values.rename({"value": "after"}), on=["key", "measure"])
    gained = _gained(store, values, networks)
    made: pl.DataFrame = frames.concat([part.select(COLUMNS) for part in (moves, *gained)])
    return made


def _multiplied(networks: pl.DataFrame, knob: str) -> pl.DataFrame:
    """Pairs of networks, one of which has a multiple of the other's value of a knob."""
    column = polars().col
    change, factor, tolerance = CHANGES[knob]
    same = [f for f in FIELDS if f != knob]
    base = networks.rename({"key": "base", knob: "smaller"})
    pairs = networks.join(base, on=same)
    off = (column(knob) / column("smaller") / factor - 1).abs()
    return pairs.filter(off <= tolerance).select("key", "base", polars().lit(change).alias("change"))


def _reseeded(networks: pl.DataFrame) -> pl.DataFrame:
    """Networks against that of the least seed of their recipe."""
    column = polars().col
    same = [f for f in FIELDS if f != "seed"]
    base = networks.sort("seed").group_by(same).agg(column("key").first().alias("base"))
    pairs = networks.join(base, on=same).filter(column("key") != column("base"))
    return pairs.select("key", "base", polars().lit("seed").alias("change"))


def _gained(store: ZooStore, values: pl.DataFrame, networks: pl.DataFrame) -> list[pl.DataFrame]:
    """Networks under a gain; ``before`` is what was measured with all others, so that a base has one value."""
    column = polars().col
    rows = store.rows("nuisance")
    if not len(rows):
        return []
    label = polars().format("gain {}", column("amount").map_elements(lambda a: f"{a:g}", return_dtype=polars().String))
    gains = rows.filter((column("transform") == "gain") & column("key").is_in(networks["key"].to_list()))
    gains = gains.select(column("key").alias("base"), label.alias("change"), column("name").alias("measure"), "value")
    before = values.rename({"key": "base", "value": "before"})
    joined = gains.rename({"value": "after"}).join(before, on=["base", "measure"])
    return [joined.with_columns(key=polars().format("{} {}", "base", "change"))]
