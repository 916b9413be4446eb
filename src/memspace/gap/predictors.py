"""Which numbers of a network the gap is told by, and on which scale each enters.

None of them needs test data or sister networks. Those of the tier ``network`` need the weights and the training data,
those of the tier ``training`` the weights at the start as well. The scale is declared and never chosen from data, so
that a network left out has no part in it.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Literal

import numpy as np
from numpy.typing import NDArray

__all__ = ["EXAMPLES", "PARAMETERS", "PREDICTORS", "TIERS", "TRAIN_LOSS", "Scale", "on_scale"]

Scale = Literal["log", "plain"]
Floats = NDArray[np.float64]
TRAIN_LOSS, EXAMPLES, PARAMETERS = "generalisation.train_loss", "data.examples", "network.parameters"

NETWORK: Mapping[str, Scale] = MappingProxyType(
    {
        TRAIN_LOSS: "log",
        EXAMPLES: "log",
        PARAMETERS: "log",
        "generalisation.tic_gap": "log",
        "generalisation.loo_estimate_as_given": "log",
        "complexity.information": "log",
        "complexity.effective_parameters": "log",
        "complexity.effective_parameters.evidence": "log",
        "complexity.fisher_rao": "log",
        "fisher.trace_over_examples": "log",
        "fisher.largest_eigenvalue": "log",
        "margins.mean": "plain",
        "margins.lower": "plain",
        "gradients.coherence": "plain",
        "gradients.noise": "plain",
        "gradients.norm": "plain",
        "confidence.mean": "plain",
        "norms.squared": "plain",
        "norms.spectral_mean": "plain",
    }
)
STARTED: Mapping[str, Scale] = MappingProxyType(
    {"norms.distance": "plain", "complexity.distance_from_initialisation": "log"}
)
PREDICTORS: Mapping[str, Scale] = MappingProxyType({**NETWORK, **STARTED})
# The richest first: a network is predicted by the first tier whose numbers it has.
TIERS: Mapping[str, tuple[str, ...]] = MappingProxyType({"training": tuple(PREDICTORS), "network": tuple(NETWORK)})


def on_scale(values: Floats, name: str) -> Floats:
    """Put a predictor on its scale.

    Args:
        values: (n,) as measured, NaN where absent.
        name: of ``PREDICTORS``.

    Returns:
        (n,) its logarithm, or itself; NaN where there is none.
    """
    if PREDICTORS[name] == "plain":
        return np.where(np.isfinite(values), values, np.nan)
    with np.errstate(divide="ignore", invalid="ignore"):
        logs = np.log(values)
    return np.where(np.isfinite(logs), logs, np.nan)
