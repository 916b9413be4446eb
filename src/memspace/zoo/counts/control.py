"""Positive control of the count of stored bits: linear threshold units, which hold two bits a weight (Cover 1965)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from memspace.experiments.perceptron import linear_unit_bits
from memspace.frames import polars

if TYPE_CHECKING:
    import polars as pl

__all__ = ["threshold_units"]


def threshold_units(
    weights: int, loads: tuple[float, ...] = (1.0, 1.5, 2.0, 3.0), *, seeds: int = 8, seed: int = 0
) -> pl.DataFrame:
    """Count what the best units hold of random labels, as rows that :func:`memspace.zoo.counts.plateau.plateaus` reads.

    Args:
        weights: d of a unit.
        loads: labels offered per weight.
        seeds: units at each load, each with points and labels of its own.
        seed: of the draws.

    Returns:
        A row a unit of the family ``threshold unit``; its optimum is exact, so that nothing is to be trained longer.
    """
    generator = np.random.default_rng(seed)
    rows = []
    for load in loads:
        points = round(load * weights)
        for k in range(seeds):
            x = generator.standard_normal((points, weights))
            bits = linear_unit_bits(x, generator.integers(0, 2, points))
            rows.append(
                {
                    "family": "threshold unit",
                    "data": "gaussian",
                    "width": weights,
                    "depth": 0,
                    "size": points,
                    "seed": k,
                    "permuted": True,
                    "parameters": weights,
                    "offered_bits": float(points),
                    "stored_bits": bits,
                    "earlier_bits": bits,
                }
            )
    frame: pl.DataFrame = polars().DataFrame(rows)
    return frame
