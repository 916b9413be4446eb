"""Single-neuron classification: each factor by one unit of its own."""

from __future__ import annotations

import math

import numpy as np
from scipy.optimize import linear_sum_assignment
from sklearn.tree import DecisionTreeClassifier

from memspace.measures.scores.binned import information
from memspace.measures.scores.score import Codes, Levels, Number, ScoreSettings, score, trained_rows, varying

__all__ = ["above_chance", "matched_units", "single_neuron"]


def single_neuron(z: Codes, v: Levels, settings: ScoreSettings | None = None) -> float:
    """Compute how well each factor is told by a unit of its own (SNC of Mahon et al. 2023).

    Factors and units are matched one to one, so that the sum of their mutual information is largest. A unit that tells
    of two factors counts for one of them; MIG and SAP let it count for both. The matched unit alone then answers: its
    values are cut into as many intervals as the factor has levels, and each interval answers with its commonest level.
    The paper cuts into equal counts, which miss the levels of random samples; here a tree with that many leaves cuts.

    Args:
        z: (M, d) codes; the first rows match and train.
        v: (M, K) levels of the factors.
        settings: bins, share of the rows that train, and seed.

    Returns:
        the mean over factors of held-out accuracy, scaled so that the commonest level has 0 and no error 1; a factor
        without a unit has 0. NaN where no factor varies.
    """
    settings = settings or ScoreSettings()
    train = trained_rows(len(z), settings)
    factors = varying(v, train)
    if not factors:
        return math.nan
    gains = [0.0] * len(factors)
    for column, unit in matched_units(z[:train], v[:train, factors], settings.bins).items():
        levels, code = v[:, factors[column]], z[:, [unit]]
        leaves = len(np.unique(levels[:train]))
        tree = DecisionTreeClassifier(max_leaf_nodes=leaves, random_state=settings.seed)
        accuracy = tree.fit(code[:train], levels[:train]).score(code[train:], levels[train:])
        gains[column] = above_chance(accuracy, levels[:train], levels[train:])
    return float(np.mean(gains))


def matched_units(z: Codes, v: Levels, bins: int = 20) -> dict[int, int]:
    """Pair factors and units one to one by the largest sum of mutual information (the Hungarian method).

    Args:
        z: (M, d) codes.
        v: (M, K) levels of factors that vary.
        bins: of a code.

    Returns:
        The unit of each factor that has one.
    """
    units, factors = linear_sum_assignment(information(z, v, bins), maximize=True)
    return {int(k): int(j) for j, k in zip(units, factors, strict=True)}


def above_chance(accuracy: float, training: Levels, judging: Levels) -> float:
    """Scale an accuracy so that always giving the commonest level has 0, and no error 1.

    Args:
        accuracy: of a classifier.
        training: (N,) levels among which the commonest is found.
        judging: (n,) levels that the accuracy is over.

    Returns:
        (accuracy − chance)/(1 − chance); 0 where chance is 1.
    """
    levels, count = np.unique(training, return_counts=True)
    chance = float(np.mean(judging == levels[count.argmax()]))
    return (accuracy - chance) / (1 - chance) if chance < 1 else 0.0


@score(
    "snc",
    {
        "snc": Number(
            "How well each factor is told by a unit of its own.",
            "one-to-one matching, intervals of one unit, half the samples held out",
            lower=-1.0,
        )
    },
    source="mahon2023",
)
def _score(z: Codes, v: Levels, settings: ScoreSettings) -> dict[str, float]:
    return {"snc": single_neuron(z, v, settings)}
