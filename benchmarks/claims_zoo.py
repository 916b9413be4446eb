"""How many networks of which families are trained in how long, and whether they are at one training loss."""

from __future__ import annotations

import argparse

import polars as pl

from benchmarks.claims_workloads import trained
from benchmarks.table import Row, at_least, at_most

__all__ = ["rows"]

HOURS = 3  # that two cores may take for training and measures
SHORT = 10  # minutes, with --small


def rows(arguments: argparse.Namespace) -> list[Row]:
    store = trained(arguments).store
    networks, measured = store.rows("trained"), store.rows("measured")
    ends = measured.filter(pl.col("moment") == 1.0).group_by("key").agg(pl.col("value").is_not_null().sum())
    measuring = measured.group_by("key").agg(pl.first("seconds"))
    seconds = float(networks["seconds"].sum()) + float(measuring["seconds"].sum())
    limit = SHORT * 60 if arguments.small else HOURS * 3600
    fitted = networks.filter(pl.col("reached"))
    off = (fitted["loss"] / fitted["target"] - 1).abs().max()
    families = networks.group_by("family").len()
    counted = ", ".join(f"{f} {n}" for f, n in sorted(families.iter_rows()))
    return [
        at_least("zoo", "networks", [len(networks)], 0 if arguments.small else 300, counted),
        at_most("zoo", "processor time over two cores, s", [seconds / 2], limit, "training and measures"),
        at_least("zoo", "share at the training loss", [len(fitted) / len(networks)], 0.9),
        at_most("zoo", "training loss off the target, share", [float(off or 0)], 1e-3),  # type: ignore[arg-type]
        at_least("zoo", "measures of a network, median", [float(ends["value"].median() or 0)], 40),  # type: ignore[arg-type]
    ]
