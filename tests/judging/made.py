"""Tables of networks with known answers."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from memspace.judging.design import JudgingDesign

Floats = NDArray[np.float64]


def grid(levels: Sequence[int], seeds: int = 1) -> dict[str, NDArray[np.int64]]:
    """All settings of knobs k0, k1, ..., each with seeds 0, 1, ..."""
    rows = np.array(list(itertools.product(*(range(n) for n in levels), range(seeds))))
    return {**{f"k{i}": rows[:, i] for i in range(len(levels))}, "seed": rows[:, -1]}


def design(levels: Sequence[int], **options: Any) -> JudgingDesign:
    return JudgingDesign(tuple(f"k{i}" for i in range(len(levels))), seed="seed", **options)


def table(knobs: dict[str, Any], gap: Any, **measures: Any) -> pl.DataFrame:
    """Networks of training loss 0.1 with this gap of loss, and of training accuracy 1 with this gap of accuracy."""
    n = len(gap)
    outcomes = {
        "key": [f"net{i}" for i in range(n)],
        "train_loss": np.full(n, 0.1),
        "test_loss": 0.1 + np.asarray(gap, float),
        "train_accuracy": np.ones(n),
        "test_accuracy": 1.0 - np.asarray(gap, float),
    }
    return pl.DataFrame({**outcomes, **knobs, **measures})


def correlated(rng: np.random.Generator, units: int, rho: float, within: int = 1, share: float = 1.0) -> Floats:
    """Two columns of normal numbers correlated over units, (units · within, 2); the seeds' part is independent."""
    root = np.linalg.cholesky([[1, rho], [rho, 1]])
    between = np.repeat(rng.standard_normal((units, 2)) @ root.T, within, axis=0)
    return np.sqrt(share) * between + np.sqrt(1 - share) * rng.standard_normal((units * within, 2))
