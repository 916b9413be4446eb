"""Networks trained by others: 910 residual networks on CIFAR-10, by which the judging is checked (Yang et al. 2021).

ResNet18 at 14 widths and 13 batch sizes, five seeds each, with the trace and the largest eigenvalue of the loss's
Hessian, and the mean distance and similarity (CKA) to the four networks that differ in the seed alone.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from memspace.errors import DataError
from memspace.frames import polars
from memspace.judging.design import JudgingDesign

if TYPE_CHECKING:
    import polars as pl

__all__ = ["DESIGN", "FITTED", "MEASURES", "read_networks"]

NAME = "networks.csv"
FOLDER = "loss-landscape-910"
FITTED = 0.99  # training accuracy from which a network has fitted its data
MEASURES = ("trace", "top_eig", "train_loss", "dist", "cka")
DESIGN = JudgingDesign(("width", "batch"), seed="seed", gap="loss", tested=10_000, left_out="width")
COLUMNS = ("batch", "width", "seed", "train_loss", "train_acc", "test_loss", "test_acc", *MEASURES)


def read_networks(path: str | Path | None = None) -> pl.DataFrame:
    """Read the 910 networks as a table to be judged.

    Args:
        path: the file ``networks.csv`` or the folder that holds it; by default the folder that the environment
            variable ``MEMSPACE_DATA`` names.

    Returns:
        One row a network: ``key``, ``width``, ``batch``, ``seed``, outcomes (accuracies as shares) and measures.

    Raises:
        DataError: the file is missing or damaged.
    """
    frames = polars()
    place = _find(path)
    remedy = "fetch the file again"
    try:
        table = frames.read_csv(place)
    except (OSError, frames.exceptions.PolarsError) as error:
        raise DataError(f"the table cannot be read ({error})"[:300], where=str(place), remedy=remedy) from error
    missing = [c for c in COLUMNS if c not in table.columns or not table.schema[c].is_numeric()]
    if missing:
        raise DataError(f"the table has no numbers in column {missing[0]!r}", where=str(place), remedy=remedy)
    key = frames.concat_str([frames.col("width"), frames.col("batch"), frames.col("seed")], separator="-")
    shares = {f"{split}_accuracy": frames.col(f"{split}_acc") / 100 for split in ("train", "test")}
    named = table.fill_nan(None).with_columns(key=key, **shares)
    outcomes = ("train_loss", "test_loss", "train_accuracy", "test_accuracy")
    selected: pl.DataFrame = named.select(list(dict.fromkeys(("key", "width", "batch", "seed", *outcomes, *MEASURES))))
    return selected


def _find(path: str | Path | None) -> Path:
    chosen = path if path is not None else os.environ.get("MEMSPACE_DATA")
    remedy = f"give the file {NAME}, its folder, or set MEMSPACE_DATA to it"
    if chosen is None:
        raise DataError("the 910 networks need their file", where=FOLDER, remedy=remedy)
    base = Path(chosen)
    for place in (base, base / NAME, base / FOLDER / NAME):
        if place.is_file():
            return place
    raise DataError(f"{NAME} is missing", where=str(base), remedy=remedy)
