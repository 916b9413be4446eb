"""The open table: is it whole, can it be made again, and is it like what was published at full size?"""

from __future__ import annotations

import argparse
import math
from pathlib import Path
from tempfile import TemporaryDirectory

import polars as pl
from torch import Tensor

import memspace
from benchmarks.table import Row, mean_interval
from memspace.encoders.declaration import load_encoders
from memspace.encoders.model import Autoencoder
from memspace.encoders.store import EncoderStore
from memspace.encoders.work import spec_images
from memspace.measures.rotation import rotation_intervention

__all__ = ["rows"]

FEWEST = 120
# What was published over methods, strengths and seeds on dSprites at full size (Locatello et al. 2019).
PUBLISHED = {
    "beta_vae": (0.7, 0.9),
    "factor_vae": (0.5, 0.85),
    "mig": (0.05, 0.4),
    "dci": (0.1, 0.55),
    "sap": (0.01, 0.1),
    "modularity": (0.75, 0.9),
}
CLAIMS = (
    "03-encoders-aligned",
    "03-encoders-efficiency",
    "03-encoders-holonomy",
    "03-encoders-orthogonal",
    "03-encoders-robustness",
)


def rows(arguments: argparse.Namespace) -> list[Row]:
    table = memspace.encoder_table()
    return [*_whole(table), *_published(table), *_again(table), *_claims(arguments.small)]


def _whole(table: pl.DataFrame) -> list[Row]:
    """Encoders, and scores without interval or null."""
    scores = [c.removesuffix(".chance") for c in table.columns if c.endswith(".chance")]
    several = table.filter(pl.col("active") >= 2)
    lacking = sum(several[f"{s}.{end}"].null_count() for s in scores for end in ("low", "high", "null"))
    few = table.height - several.height
    detail = f"{len(scores)} numbers of scores; {few} encoders with fewer than two units in use have none"
    return [
        Row("models", "encoders of the open table", f"≥ {FEWEST}", table.height, None, None, table.height >= FEWEST),
        Row("models", "scores without interval or null", "= 0", lacking, None, None, lacking == 0, detail),
    ]


def _published(table: pl.DataFrame) -> list[Row]:
    """The middle of the unsupervised encoders on sprites, against published ranges."""
    sprites = table.filter((pl.col("family") == "dsprites") & ~pl.col("supervised"))
    made = []
    for name, (low, high) in PUBLISHED.items():
        values = sprites[name].drop_nulls()
        middle, ends = values.median(), (values.quantile(0.1), values.quantile(0.9))
        assert isinstance(middle, float)
        inside = low <= middle <= high
        detail = "interval: 80% of the encoders"
        made.append(Row("models", f"median {name} on sprites", f"{low:g} to {high:g}", middle, *ends, inside, detail))
    return made


def _again(table: pl.DataFrame) -> list[Row]:
    """Train and measure the small set from nothing, and look where its numbers lie in the shipped intervals."""
    with TemporaryDirectory() as folder:
        memspace.train_encoders("small", out=Path(folder))
        again = memspace.encoder_table(folder)
        turned = _turned(Path(folder))
    names = [c.removesuffix(".low") for c in table.columns if c.endswith(".low")]
    shipped = {row["key"]: row for row in table.to_dicts()}
    inside, equal, outside = 0, 0, []
    for row in again.to_dicts():
        known = shipped[row["key"]]
        for name in names:
            value, low, high = row.get(name), known[f"{name}.low"], known[f"{name}.high"]
            if value is None or low is None:
                continue
            equal += math.isclose(value, known[name], rel_tol=1e-9)
            if low <= value <= high:
                inside += 1
            else:
                outside.append(f"{row['method']} {name}")
    share = inside / (inside + len(outside))
    quantity = "numbers of encoders made again inside of the shipped intervals"
    detail = f"{equal} of {inside + len(outside)} the same to 1e-9; outside: {', '.join(outside[:4]) or 'none'}"
    return [Row("models", quantity, "= 1", share, None, None, not outside, detail), *turned]


def _turned(folder: Path) -> list[Row]:
    """Rotate the latents of trained encoders: angles stay, scores fall."""
    store = EncoderStore(folder)
    changes, falls = [], []
    for spec in load_encoders("small").specs:
        images = spec_images(spec, folder, None)
        model, _ = store.encoder(spec, images)
        world = images.world
        moved = [world.position(name) for name in world.ordered]

        def encoder(x: Tensor, model: Autoencoder = model) -> tuple[Tensor, Tensor]:
            posterior = model.posterior(x)
            return posterior.mean.double(), posterior.variance.double()

        result = rotation_intervention(encoder, world.render, images.test_levels[:300], world.names, moved)
        changes.append(result.change)
        falls.append(result.before["mig"] - result.after["mig"].value)
    largest, fallen = max(changes), mean_interval(falls)
    return [
        Row(
            "models", "largest change of |cos| by rotating the latents", "≤ 1e-6", largest, None, None, largest <= 1e-6
        ),
        Row("models", "fall of MIG by rotating the latents", "", *fallen, None, f"{len(falls)} trained encoders"),
    ]


def _claims(small: bool) -> list[Row]:
    """The verdicts, judged again from the shipped table."""
    from memspace.claims.again import SHIPPED, shipped_verdicts

    stated = {r.id: r for r in shipped_verdicts()}
    made = []
    for name in CLAIMS[:1] if small else CLAIMS:
        word = memspace.judge_claims([name], store=SHIPPED).verdicts[name]
        (effect,) = (v.effect for label, v in stated[name].effects.items() if label.endswith("overall"))
        value = math.nan if effect is None else effect.value
        low, high = (None if effect is None else effect.interval) or (None, None)
        known = stated[name].word
        made.append(Row("models", f"verdict on {name}", known, value, low, high, word == known, word))
    return made
