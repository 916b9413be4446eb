"""The networks that the parts of ``benchmarks.claims`` work on."""

from __future__ import annotations

import argparse
from pathlib import Path

import polars as pl

from memspace.claims.again import SHIPPED
from memspace.claims.run import opened_store
from memspace.verbs.zoo import TrainedZoo, WorkSettings, train_zoo

__all__ = ["networks", "place", "trained"]

OUT = Path(__file__).resolve().parent / "out"


def trained(arguments: argparse.Namespace) -> TrainedZoo:
    """Train and measure the zoo, or what of it is missing."""
    settings = WorkSettings(workers=2, data_root=arguments.data_root, stages=("train", "outcomes", "measures"))
    return train_zoo(_name(arguments), out=OUT / f"zoo-{_name(arguments)}", settings=settings)


def place(arguments: argparse.Namespace) -> Path:
    """The folder of the networks, trained and measured."""
    return SHIPPED if arguments.shipped else trained(arguments).store.folder


def networks(arguments: argparse.Namespace, also: str = "") -> pl.DataFrame:
    """A row a network and moment, of the zoo and of another that lies with it."""
    return opened_store(place(arguments)).table().filter(pl.col("zoo").is_in([_name(arguments), also]))


def _name(arguments: argparse.Namespace) -> str:
    return "small" if arguments.small else "standard"
