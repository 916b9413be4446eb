"""The zoo that the parts of ``benchmarks.claims`` work on."""

from __future__ import annotations

import argparse
from pathlib import Path

from memspace.verbs.zoo import TrainedZoo, WorkSettings, train_zoo

__all__ = ["trained"]

OUT = Path(__file__).resolve().parent / "out"


def trained(arguments: argparse.Namespace) -> TrainedZoo:
    """Train and measure the zoo, or what of it is missing."""
    name = "small" if arguments.small else "standard"
    settings = WorkSettings(workers=2, data_root=arguments.data_root, stages=("train", "outcomes", "measures"))
    return train_zoo(name, out=OUT / f"zoo-{name}", settings=settings)
