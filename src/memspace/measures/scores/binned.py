"""Mutual information of binned codes and factors, and its gap."""

from __future__ import annotations

import numpy as np

from memspace.measures.scores.score import Codes, Levels

__all__ = ["binned", "entropies", "information"]

ROUNDING = 1e-12  # nats


def binned(z: Codes, bins: int = 20) -> Levels:
    """Put each code into bins of equal width between its extremes.

    Args:
        z: (M, d) codes.
        bins: number of bins.

    Returns:
        (M, d) bins, from 0.
    """
    edges = [np.histogram_bin_edges(c, bins)[1:-1] for c in z.T]
    return np.stack([np.digitize(c, e) for c, e in zip(z.T, edges, strict=True)], 1).astype(np.int64)


def information(z: Codes, v: Levels, bins: int = 20) -> Codes:
    """Compute the plug-in mutual information of binned codes and factors, H(v) + H(z) − H(v, z).

    Its bias is about (bins − 1)(levels − 1)/(2M) nats, for every code alike.

    Args:
        z: (M, d) codes.
        v: (M, K) levels.
        bins: of a code.

    Returns:
        (d, K) in nats; exactly 0 where it is below rounding.
    """
    cells = binned(z, bins)
    factors = np.stack([np.unique(f, return_inverse=True)[1].ravel() for f in v.T], 1)
    joint = np.array([[_entropy(f * bins + c) for f in factors.T] for c in cells.T])
    shared = np.array([_entropy(c) for c in cells.T])[:, None] + entropies(v) - joint
    return np.where(shared > ROUNDING, shared, 0.0)


def entropies(v: Levels) -> Codes:
    """Compute the entropy of each factor's levels.

    Args:
        v: (M, K) levels.

    Returns:
        (K,) in nats.
    """
    return np.array([_entropy(np.unique(f, return_inverse=True)[1].ravel()) for f in v.T])


def _entropy(labels: Levels) -> float:
    count = np.bincount(labels)
    share = count[count > 0] / len(labels)
    return float(-(share * np.log(share)).sum())
