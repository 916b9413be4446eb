"""Codes whose scores are known by construction."""

from __future__ import annotations

import numpy as np

from memspace.measures.scores.every_score import standardised
from memspace.measures.scores.score import Codes, Levels, ScoreSettings, registered_scores

__all__ = ["FAST", "QUICK", "SIZES", "constructed", "haar", "levels", "numbers"]

SIZES = (3, 4, 5)
QUICK = ScoreSettings(points=600, judged=600)
# All but the two that take longest; these are named where they are tried.
FAST = ("mig", "sap", "modularity", "explicitness", "factor_vae", "beta_vae", "irs", "snc")


def levels(rows: int, seed: int, sizes: tuple[int, ...] = SIZES) -> Levels:
    """(rows, K) independent uniform levels."""
    generator = np.random.default_rng(seed)
    return np.stack([generator.integers(0, s, rows) for s in sizes], 1).astype(np.int64)


def haar(width: int, seed: int) -> Codes:
    q, r = np.linalg.qr(np.random.default_rng(seed).standard_normal((width, width)))
    return q * np.sign(np.diag(r))


def constructed(kind: str, v: Levels, seed: int) -> Codes:
    """(rows, d) codes of unit variance: each kind keeps, mixes, repeats or loses what the levels say."""
    generator = np.random.default_rng(seed)
    exact = standardised(v.astype(np.float64))
    noise = generator.standard_normal(v.shape)
    if kind == "perfect":
        return exact
    if kind == "rotated":
        return standardised(exact @ haar(v.shape[1], seed))
    if kind == "duplicated":
        return np.concatenate([exact, exact], 1)
    if kind == "missing":  # nothing tells of the first factor
        return np.concatenate([noise[:, :1], exact[:, 1:]], 1)
    if kind == "noisy":
        return standardised(exact + 0.5 * noise)
    if kind == "constant":
        return np.concatenate([exact, np.zeros((len(v), 1))], 1)
    if kind == "permuted":
        return exact[:, [2, 0, 1]]
    if kind == "independent":
        return standardised(noise)
    raise AssertionError(kind)


def numbers(z: Codes, v: Levels, *names: str, settings: ScoreSettings = QUICK) -> dict[str, float]:
    """Numbers of the named scores, by default of all that are fast."""
    known = registered_scores()
    return {k: x for name in names or FAST for k, x in known[name].compute(z, v, settings).items()}
