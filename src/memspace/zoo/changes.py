"""Pairs of networks that differ in one small change of the recipe, as ``memspace.judging.fragility`` reads them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from memspace.frames import polars
from memspace.judging.fragility import COLUMNS

if TYPE_CHECKING:
    import polars as pl

__all__ = ["CHANGES", "moves_of"]

# What is changed → from one value to a multiple of it, up to a relative tolerance: declarations round √2 to 1.414.
CHANGES = {"rate": ("rate × √2", 2**0.5, 1e-3), "width": ("width × 2", 2.0, 0.0)}
RECIPE = (
    "zoo", "family", "data", "width", "depth", "rate", "batch", "decay", "dropout", "label_noise", "size", "optimiser",
    "seed", "start", "permuted",
)  # fmt: skip


def moves_of(networks: pl.DataFrame, changed: pl.DataFrame | None, measures: Sequence[str]) -> pl.DataFrame:
    """List what a measure is before and after a small change, among networks that reached their training loss.

    Learning rate and width are compared at equal seed and everything else; a seed with the least seed of the same
    recipe; a gain on the logits, of networks that were measured under gains, with the network as it is.

    Args:
        networks: a row a network and moment, of which the end is taken.
        changed: the table ``nuisance``, a row a network and change of its weights; None where there is none.
        measures: their names.

    Returns:
        A row a changed network and measure: ``key``, ``base``, ``change`` (``rate × √2``, ``width × 2``, ``seed``,
        ``gain 0.1``, …), ``measure``, ``before``, ``after``.
    """
    frames, column = polars(), polars().col
    ends = networks.filter((column("moment") == 1.0) & column("fitted"))
    named = [m for m in measures if m in ends.columns]
    values = ends.select("key", *named).unpivot(index="key", variable_name="measure").drop_nulls("value")
    pairs = frames.concat([*(_multiplied(ends, knob) for knob in CHANGES), _reseeded(ends)])
    moves = pairs.join(values.rename({"key": "base", "value": "before"}), on="base")
    moves = moves.join(values.rename({"value": "after"}), on=["key", "measure"])
    gained = [] if changed is None else [_gained(changed, values, named)]
    made: pl.DataFrame = frames.concat([part.select(COLUMNS) for part in (moves, *gained)])
    return made


def _multiplied(networks: pl.DataFrame, knob: str) -> pl.DataFrame:
    """Pairs of networks, one of which has a multiple of the other's value of a knob."""
    column = polars().col
    change, factor, tolerance = CHANGES[knob]
    same = [f for f in RECIPE if f != knob]
    base = networks.select(*same, column("key").alias("base"), column(knob).alias("smaller"))
    pairs = networks.join(base, on=same)
    off = (column(knob) / column("smaller") / factor - 1).abs()
    return pairs.filter(off <= tolerance).select("key", "base", polars().lit(change).alias("change"))


def _reseeded(networks: pl.DataFrame) -> pl.DataFrame:
    """Networks against that of the least seed of their recipe."""
    column = polars().col
    same = [f for f in RECIPE if f != "seed"]
    base = networks.sort("seed").group_by(same).agg(column("key").first().alias("base"))
    pairs = networks.join(base, on=same).filter(column("key") != column("base"))
    return pairs.select("key", "base", polars().lit("seed").alias("change"))


def _gained(changed: pl.DataFrame, values: pl.DataFrame, measures: Sequence[str]) -> pl.DataFrame:
    """Networks under a gain; ``before`` is what was measured with all others, so that a base has one value."""
    column = polars().col
    gains = changed.filter(column("transform").str.starts_with("gain"))
    there = [m for m in measures if m in gains.columns]
    index = ["key", "transform"]
    after = gains.select(*index, *there).unpivot(index=index, variable_name="measure", value_name="after")
    after = after.rename({"key": "base", "transform": "change"})
    joined = after.join(values.rename({"key": "base", "value": "before"}), on=["base", "measure"])
    return joined.with_columns(key=polars().format("{} {}", "base", "change"))
