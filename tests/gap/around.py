"""Networks in twelve groups around one that was measured, for calibrations that know what they should give."""

from __future__ import annotations

import numpy as np
import polars as pl

from memspace.gap.predictors import EXAMPLES, PARAMETERS

__all__ = ["USED", "zoo_around"]

USED = ("generalisation.tic_gap", "margins.mean", "fisher.trace_over_examples", "norms.squared")


def zoo_around(numbers: dict[str, float], spread: float = 0.2) -> pl.DataFrame:
    """Networks in twelve groups whose measures lie around those of one; the gap goes with the TIC gap."""
    r = np.random.default_rng(1)
    n = 72
    columns = {p: numbers[p] * np.exp(spread * r.standard_normal(n)) for p in (*USED, EXAMPLES, PARAMETERS)}
    train = numbers["generalisation.train_loss"]
    noise = np.exp(0.05 * r.standard_normal(n))
    ratio = 3 * (columns["generalisation.tic_gap"] / numbers["generalisation.tic_gap"]) ** 0.5
    return pl.DataFrame(
        {
            **columns,
            "block": [f"star {k // 6}" for k in range(n)],
            "train_loss": np.full(n, train),
            "generalisation.train_loss": np.full(n, train),
            "test_loss": train * ratio * noise,
            "outputs": np.full(n, 10),
            "sequence": np.zeros(n, bool),
        }
    )
