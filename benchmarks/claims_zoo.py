"""How many networks of which families are trained in how long, and whether they are at one training loss."""

from __future__ import annotations

import argparse

import polars as pl

from benchmarks.claims_workloads import networks, trained
from benchmarks.table import Row, at_least, at_most
from memspace.verbs.judge import measures_in

__all__ = ["rows"]

HOURS = 3  # that two cores may take for training and measures
SHORT = 10  # minutes, with --small


def rows(arguments: argparse.Namespace) -> list[Row]:
    ends = networks(arguments).filter(pl.col("moment") == 1.0)
    fitted = ends.filter("fitted")
    measured = ends.select(pl.sum_horizontal(pl.col(measures_in(ends)).is_not_null()).alias("measures"))["measures"]
    counted = ", ".join(f"{f} {n}" for f, n in sorted(ends.group_by("family").len().iter_rows()))
    made = [
        at_least("zoo", "networks", [len(ends)], 0 if arguments.small else 300, counted),
        at_least("zoo", "share at the training loss", [len(fitted) / len(ends)], 0.9),
        at_least("zoo", "measures of a network, median", [float(measured.median() or 0)], 40),  # type: ignore[arg-type]
    ]
    return made if arguments.shipped else made + _trained(arguments)


def _trained(arguments: argparse.Namespace) -> list[Row]:
    """What the tables do not say: how long it took, and how near the losses are to their target."""
    store = trained(arguments).store
    trained_rows, measured = store.rows("trained"), store.rows("measured")
    measuring = measured.group_by("key").agg(pl.first("seconds"))
    seconds = float(trained_rows["seconds"].sum()) + float(measuring["seconds"].sum())
    fitted = trained_rows.filter("reached")
    off = (fitted["loss"] / fitted["target"] - 1).abs().max()
    limit = SHORT * 60 if arguments.small else HOURS * 3600
    return [
        at_most("zoo", "processor time over two cores, s", [seconds / 2], limit, "training and measures"),
        at_most("zoo", "training loss off the target, share", [float(off or 0)], 1e-3),  # type: ignore[arg-type]
    ]
