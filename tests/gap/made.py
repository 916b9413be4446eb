"""Made-up zoos with a known relation of measures and gap."""

from __future__ import annotations

import numpy as np
import polars as pl

__all__ = ["made_zoo"]

TRAIN = 0.2


def made_zoo(
    seed: int,
    groups: int = 12,
    networks: int = 10,
    *,
    between: float = 0.1,
    within: float = 0.1,
    heavy: bool = False,
) -> pl.DataFrame:
    """Networks of groups drawn alike: log test loss = −0.5 + 0.4 a − 0.2 b + group + noise, a and b two measures.

    A group shifts the measures too, as stars of a zoo do. ``heavy``: the noise has Student's law of three degrees.
    """
    r = np.random.default_rng(seed)
    n = groups * networks
    group = np.repeat(np.arange(groups), networks)
    noise = r.standard_t(3, n) if heavy else r.standard_normal(n)
    a, b = (r.standard_normal(groups)[group] + 0.7 * r.standard_normal(n) for _ in range(2))
    c = r.standard_normal(n)
    log_test = -0.5 + 0.4 * a - 0.2 * b + between * r.standard_normal(groups)[group] + within * noise
    return pl.DataFrame(
        {
            "block": [f"star {k}" for k in group],
            "data": [f"data {k % 4}" for k in group],
            "train_loss": TRAIN * np.ones(n),
            "test_loss": np.exp(log_test),
            "outputs": np.full(n, 10),
            "sequence": np.zeros(n, bool),
            "generalisation.train_loss": TRAIN * np.exp(0.01 * r.standard_normal(n)),
            "generalisation.tic_gap": np.exp(a),
            "margins.mean": b,
            "gradients.coherence": c,
        }
    )
