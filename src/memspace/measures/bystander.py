"""An opinion on every label from the inputs alone, by a predictor that did not see it: a forest, out of bag.

A network trained long on few examples is a poor judge of its own labels: it fits the wrong ones too. A forest of
extremely randomised trees (Geurts et al. 2006) on the raw inputs errs in other ways, costs seconds, and its trees did
not see what was left out of their samples (Breiman 2001).
"""

from __future__ import annotations

import math
import warnings

import numpy as np
import torch
from torch import Tensor

__all__ = ["forest_opinion", "forest_seconds"]

TREES, LEAF = 200, 2
OUTSIDE = 0.37  # share of the examples that a bootstrap sample leaves out
WIDEST, MOST, CLASSES = 4096, 10_000, 200


def forest_opinion(x: Tensor, y: Tensor, classes: int, seed: int) -> Tensor | None:
    """Fit a forest to the inputs and return its out-of-bag log-probabilities.

    Args:
        x: (n, ...) real inputs.
        y: (n,) labels from 0 to classes − 1.
        classes: C.
        seed: random seed of the forest.

    Returns:
        (n, C) float64; None where only one class occurs, or n, the inputs or the classes are too few or too many for a
        fit of seconds.
    """
    from sklearn.ensemble import ExtraTreesClassifier

    n, width = len(x), x[0].numel() if len(x) else 0
    seen = len(torch.unique(y))
    if not (20 <= n <= MOST and 1 <= width <= WIDEST and seen >= 2 and classes <= CLASSES):
        return None
    table = x.detach().reshape(n, -1).float().cpu().numpy()
    if not np.isfinite(table).all():
        return None
    forest = ExtraTreesClassifier(TREES, min_samples_leaf=LEAF, bootstrap=True, oob_score=True, random_state=seed)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of examples that every tree has seen: they get no opinion below
        forest.fit(table, y.detach().cpu().numpy())
    p = np.zeros((n, classes))
    p[:, forest.classes_] = forest.oob_decision_function_
    p[~np.isfinite(p).all(1)] = 1 / classes
    counted = TREES * OUTSIDE
    return torch.from_numpy(np.log((p * counted + 1 / classes) / (counted + 1)))


def forest_seconds(n: int, width: int) -> float:
    """Estimate the time :func:`forest_opinion` takes.

    Args:
        n: inputs.
        width: numbers in an input.

    Returns:
        seconds of one core, roughly.
    """
    return 0.3 + 2.2e-6 * n * math.log2(max(n, 2)) * math.sqrt(width)
