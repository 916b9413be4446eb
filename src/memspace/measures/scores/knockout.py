"""Neuron knockout: what is lost of a factor without the unit that stands for it."""

from __future__ import annotations

import math
import warnings

import numpy as np
from sklearn.exceptions import ConvergenceWarning
from sklearn.neural_network import MLPClassifier

from memspace.measures.scores.score import Codes, Levels, Number, ScoreSettings, score, trained_rows, varying
from memspace.measures.scores.single_neuron import above_chance, matched_units

__all__ = ["knockout"]

HIDDEN = 256
RATE = 0.01
EPOCHS = 50


def knockout(z: Codes, v: Levels, settings: ScoreSettings | None = None) -> float:
    """Compute how much of a factor is lost without its unit (NK of Mahon et al. 2023).

    A network with one hidden layer predicts the factor from all units, and another one without the unit that is matched
    to the factor. What other units tell, alone or together, lowers the score; scores of single units do not see it.
    Both accuracies are scaled so that the commonest level has 0 and no error 1, and their difference is the score.

    Args:
        z: (M, d) codes; they are standardised.
        v: (M, K) levels of the factors.
        settings: bins, share of the rows that train, and seed.

    Returns:
        the mean over factors; a factor without a unit has 0. NaN where no factor varies or there is a single unit.
    """
    settings = settings or ScoreSettings()
    train = trained_rows(len(z), settings)
    factors = varying(v, train)
    if not factors or z.shape[1] < 2:
        return math.nan
    scaled = (z - z.mean(0)) / np.maximum(z.std(0), 1e-12)
    losses = [0.0] * len(factors)
    for column, unit in matched_units(z[:train], v[:train, factors], settings.bins).items():
        levels = v[:, factors[column]]
        whole = _accuracy(scaled, levels, train, settings.seed)
        without = _accuracy(np.delete(scaled, unit, 1), levels, train, settings.seed)
        losses[column] = whole - without
    return float(np.mean(losses))


def _accuracy(z: Codes, levels: Levels, train: int, seed: int) -> float:
    network = MLPClassifier((HIDDEN,), learning_rate_init=RATE, max_iter=EPOCHS, random_state=seed)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # the number of epochs is part of the score
        network.fit(z[:train], levels[:train])
    return above_chance(network.score(z[train:], levels[train:]), levels[:train], levels[train:])


@score(
    "nk",
    {
        "nk": Number(
            "How much of a factor is lost without the unit that stands for it.",
            "networks with 256 hidden units, half the samples held out",
            lower=-1.0,
        )
    },
    source="mahon2023",
    slow=True,
)
def _score(z: Codes, v: Levels, settings: ScoreSettings) -> dict[str, float]:
    return {"nk": knockout(z, v, settings)}
