"""The interventional robustness score."""

from __future__ import annotations

import math

import numpy as np

from memspace.measures.scores.score import Codes, Levels, Number, ScoreSettings, score, varying

__all__ = ["irs"]


def irs(z: Codes, v: Levels, quantile: float = 0.99) -> float:
    """Compute how little a unit moves when all factors but one change (Suter et al. 2019).

    Unit j and factor k have 1 − mean over levels of q(|z_j − E[z_j | v_k]|) / max |z_j − E z_j|, where q is a high
    quantile in place of the largest, as in Locatello et al. 2019. A unit counts by its best factor, and units are
    weighted by their largest deviation, so that their scale counts. Within a level the other factors vary as they do in
    the table; a change of them alone cannot be forced. Noise scores above 0, since a quantile lies below the maximum.

    Args:
        z: (M, d) codes.
        v: (M, K) levels of the factors.
        quantile: of the deviations within a level.

    Returns:
        the mean over units, at most 1; NaN where no factor or no unit varies. Means of small levels lie off the overall
        mean, so units that tell nothing may have a number a little below 0.
    """
    factors = varying(v)
    largest = np.abs(z - z.mean(0)).max(0)
    active = largest > 0
    if not factors or not active.any():
        return math.nan
    z, largest = z[:, active], largest[active]
    robust = np.empty((len(largest), len(factors)))
    for column, k in enumerate(factors):
        deviations = []
        for level in np.unique(v[:, k]):
            same = z[v[:, k] == level]
            deviations.append(np.quantile(np.abs(same - same.mean(0)), quantile, axis=0))
        robust[:, column] = 1 - np.mean(deviations, 0) / largest
    return float(np.average(robust.max(1), weights=largest))


@score(
    "irs",
    {
        "irs": Number(
            "How little a unit moves while its factor is held and the others change.", "99% quantiles", lower=-1.0
        )
    },
    source="suter2019",
    partitions=4,
)
def _score(z: Codes, v: Levels, settings: ScoreSettings) -> dict[str, float]:
    return {"irs": irs(z, v, settings.quantile)}
