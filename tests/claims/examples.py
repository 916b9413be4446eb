"""Registrations as they are written, and folders of them."""

from __future__ import annotations

from pathlib import Path

import polars as pl

from memspace.claims.lock import register
from memspace.claims.reading import chosen_registrations
from memspace.claims.store import ParquetStore

RANK = '''
id = "01-rank"
title = "Lower complexity generalises better"
claim = "Networks of lower complexity generalise better."
hypothesis = """
Networks with less of the measure have the smaller gap,
whatever hyper-parameter is varied."""
unit = ["family", "data", "configuration"]
caveats = ["Two data sets were used."]

[statistic]
name = "rank relation"
measures = ["measure"]
gap = "gap"
knobs = ["width", "rate", "decay"]
within = ["data"]

[population]
families = ["mlp", "recurrent"]
zoo = "standard"
fitted = true

[sample]
kind = "kendall"
units = 54
effect = 0.35
power = 0.84

[decision]
direction = "greater"
threshold = 0.1
contradiction = 0.0
families = 2

[control]
permute = ["gap"]
within = ["family", "data"]
repeats = 20
'''
PAIRS = """
id = "02-pairs"
title = "Matched pairs"
claim = "Of two networks alike, the less complex one generalises better."
hypothesis = "In most pairs the network with less of the measure has the smaller gap."
unit = ["family", "data", "configuration"]

[statistic]
name = "matched pairs"
measure = "measure"
gap = "gap"
same = ["data"]
matched = "train_loss"
within = 0.01

[population]
families = ["mlp", "recurrent"]

[sample]
kind = "share"
units = 60
effect = 0.68
power = 0.74

[decision]
direction = "greater"
threshold = 0.5
contradiction = 0.5
null = 0.5

[control]
permute = ["gap"]
within = ["family", "data"]
repeats = 20
"""


def written(folder: Path, *texts: str) -> Path:
    """A folder of registrations, each named after its id."""
    folder.mkdir(exist_ok=True)
    for text in texts:
        name = text.split('id = "')[1].split('"')[0]
        (folder / f"{name}.toml").write_text(text, encoding="utf-8")
    return folder


def locked(folder: Path, *texts: str) -> Path:
    """The same, registered for a store that does not exist yet."""
    written(folder, *texts)
    register(chosen_registrations((), folder), folder, ParquetStore(folder / "none"))
    return folder


def stored(folder: Path, table: pl.DataFrame, name: str = "networks") -> Path:
    """A store with one table."""
    folder.mkdir(exist_ok=True)
    table.write_parquet(folder / f"{name}.parquet")
    return folder
