"""The mutual information gap."""

from __future__ import annotations

import math

import numpy as np

from memspace.measures.scores.binned import entropies, information
from memspace.measures.scores.score import Codes, Levels, Number, ScoreSettings, score, varying

__all__ = ["mig"]


def mig(z: Codes, v: Levels, bins: int = 20) -> float:
    """Compute the mutual information gap: between a factor's two most informative codes, over the factor's entropy.

    mean_k (I(z_(1); v_k) − I(z_(2); v_k)) / H(v_k), by the plug-in information of equal-width bins (Chen et al.
    2018a). The bias of the information, about 19 (levels − 1)/(2M) nats for every code, cancels in the gap except
    where a code is exact.

    Args:
        z: (M, d) codes.
        v: (M, K) levels of the factors.
        bins: of a code.

    Returns:
        the mean gap over the factors that vary, in [0, 1]; NaN where none varies.
    """
    factors = varying(v)
    if not factors:
        return math.nan
    ordered = np.sort(information(z, v[:, factors], bins), 0)[::-1]
    second = ordered[1] if len(ordered) > 1 else 0.0
    return float(np.mean((ordered[0] - second) / entropies(v[:, factors])))


@score(
    "mig",
    {"mig": Number("How much more one unit tells of a factor than the next unit does.", "20-bin histograms")},
    source="chen2018a",
)
def _score(z: Codes, v: Levels, settings: ScoreSettings) -> dict[str, float]:
    return {"mig": mig(z, v, settings.bins)}
