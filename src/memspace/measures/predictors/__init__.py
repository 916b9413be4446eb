"""Measures that are claimed to tell, from training data alone, how well a network generalises.

Importing the package declares them all, for the chapter ``predictors``.
"""

from memspace.measures.predictors import (
    alignment,
    confidence,
    curvature,
    evidence,
    margins,
    norms,
    optimisation,
    path_norm,
    similarity,
    spectrum,
    tails,
)

__all__ = [
    "alignment",
    "confidence",
    "curvature",
    "evidence",
    "margins",
    "norms",
    "optimisation",
    "path_norm",
    "similarity",
    "spectrum",
    "tails",
]
