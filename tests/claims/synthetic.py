"""Stores of networks that never were: measures, gaps and errors whose relation is known."""

from __future__ import annotations

from itertools import product

import numpy as np
import polars as pl

FAMILIES = ("mlp", "recurrent")


def zoo(
    seed: int = 0,
    *,
    effect: float = 0.0,
    families: tuple[str, ...] = FAMILIES,
    configurations: tuple[int, int, int] = (3, 3, 3),
    seeds: int = 2,
    between: float = 1.0,
) -> pl.DataFrame:
    """A table of networks: a grid of three knobs, each with some seeds.

    ``measure`` and ``gap`` are normal with correlation ``effect`` between configurations; both also have noise of
    the seed, independent, a fifth of ``between``. The knobs do nothing.
    """
    generator = np.random.default_rng(seed)
    rows = []
    for family, data in product(families, ("a", "b")):
        for number, knobs in enumerate(product(*map(range, configurations))):
            x, noise = between * generator.standard_normal(2)
            y = effect * x + np.sqrt(1 - effect**2) * noise
            for k in range(seeds):
                e = 0.2 * between * generator.standard_normal(4)
                rows.append(
                    {
                        "family": family,
                        "data": data,
                        "width": knobs[0],
                        "rate": knobs[1],
                        "decay": knobs[2],
                        "configuration": number,
                        "seed": k,
                        "fitted": True,
                        "zoo": "standard",
                        "train_loss": 0.1 + 0.001 * e[2],
                        "parameters": float(np.exp(generator.standard_normal())),
                        "measure": float(np.exp(x + e[0])),
                        "rival": float(np.exp(generator.standard_normal())),
                        "gap": float(y + e[1]),
                    }
                )
    return pl.DataFrame(rows)
