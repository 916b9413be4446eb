"""The statistics of claims, a file each; as they are imported they declare themselves."""

from __future__ import annotations

from memspace.claims.statistics import (
    added_value,
    agreement,
    dose_response,
    intervention,
    invariance,
    layers,
    matched_pairs,
    rank_relation,
    stability,
    ties,
)

__all__ = [
    "added_value",
    "agreement",
    "dose_response",
    "intervention",
    "invariance",
    "layers",
    "matched_pairs",
    "rank_relation",
    "stability",
    "ties",
]
