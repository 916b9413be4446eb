"""Measures that are claimed to tell, from training data alone, how well a network generalises.

Importing the package declares them all, for the chapter ``predictors``.
"""

from memspace.measures.predictors import evidence, spectrum

__all__ = ["evidence", "spectrum"]
