"""Measures that are claimed to tell, from training data alone, how well a network generalises.

Importing the package declares them all, for the chapter ``predictors``.
"""

from memspace.measures.predictors import (
    alignment,
    confidence,
    curvature,
    evidence,
    hessian,
    learning_coefficient,
    margins,
    norms,
    optimisation,
    pac_bayes,
    path_norm,
    sharpness,
    similarity,
    spectrum,
    tails,
)

__all__ = [
    "alignment",
    "confidence",
    "curvature",
    "evidence",
    "hessian",
    "learning_coefficient",
    "margins",
    "norms",
    "optimisation",
    "pac_bayes",
    "path_norm",
    "sharpness",
    "similarity",
    "spectrum",
    "tails",
]
