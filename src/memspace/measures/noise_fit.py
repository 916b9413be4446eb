"""Maximum likelihood of a calibration under a given share and pattern of wrong labels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.optimize import minimize

__all__ = ["Fit", "calibrated", "centred", "fit_calibration", "posterior", "transitions", "uniform"]

SPREAD = 1.0  # prior standard deviation of the classes' offsets, nats
STEEPEST = 30.0


@dataclass(frozen=True)
class Fit:
    """A calibration π = softmax(Σ_k weight_k z_k + offset).

    Args:
        weight: (K,) of the opinions.
        offset: (C,) of the classes.
        loss: −log likelihood with the offsets' prior, nats.
    """

    weight: np.ndarray
    offset: np.ndarray
    loss: float


def centred(opinions: Sequence[np.ndarray]) -> np.ndarray:
    """Stack opinions and subtract each example's mean, which no softmax sees.

    Args:
        opinions: K tables (n, C).

    Returns:
        (K, n, C).
    """
    return np.stack([f - f.mean(1, keepdims=True) for f in opinions])


def uniform(classes: int) -> np.ndarray:
    """Return the pattern of wrong labels that are any other class alike.

    Args:
        classes: C.

    Returns:
        Q (C, C), rows of sum 1.
    """
    return (1 - np.eye(classes)) / max(classes - 1, 1)


def transitions(share: float, towards: np.ndarray) -> np.ndarray:
    """Compute p(observed | true) = (1 − ε) I + ε Q.

    Args:
        share: ε, of wrong labels.
        towards: Q (C, C).

    Returns:
        (C, C), rows by true class.
    """
    read: np.ndarray = np.maximum((1 - share) * np.eye(len(towards)) + share * towards, 0.0)
    return read


def calibrated(z: np.ndarray, fit: Fit) -> np.ndarray:
    """Compute p(true class | input), π.

    Args:
        z: (K, n, C) opinions, centred.
        fit: the calibration.

    Returns:
        (n, C).
    """
    logits = np.tensordot(fit.weight, z, 1) + fit.offset
    p = np.exp(logits - logits.max(1, keepdims=True))
    law: np.ndarray = p / p.sum(1, keepdims=True)
    return law


def posterior(z: np.ndarray, y: np.ndarray, fit: Fit, share: float, towards: np.ndarray) -> np.ndarray:
    """Compute p(true class | input, observed label).

    Args:
        z: (K, n, C) opinions, centred.
        y: (n,) observed labels.
        fit: the calibration.
        share: ε, of wrong labels.
        towards: Q (C, C).

    Returns:
        (n, C).
    """
    joint = calibrated(z, fit) * transitions(share, towards)[:, y].T
    law: np.ndarray = joint / np.maximum(joint.sum(1, keepdims=True), 1e-300)
    return law


def fit_calibration(z: np.ndarray, y: np.ndarray, share: float, towards: np.ndarray, start: Fit | None = None) -> Fit:
    """Fit weights and offsets of greatest likelihood of the observed labels.

    With r the posterior of the true label, the gradient by the logits is r − π.

    Args:
        z: (K, n, C) opinions, centred.
        y: (n,) observed labels.
        share: ε, of wrong labels.
        towards: Q (C, C).
        start: where to begin; None: the plain mean of the opinions.

    Returns:
        the calibration.
    """
    k, _, classes = z.shape
    read = transitions(share, towards)[:, y].T

    def objective(x: np.ndarray) -> tuple[float, np.ndarray]:
        logits = np.tensordot(x[:k], z, 1) + x[k:]
        pi = np.exp(logits - logits.max(1, keepdims=True))
        pi /= pi.sum(1, keepdims=True)
        joint = pi * read
        p = np.maximum(joint.sum(1), 1e-300)
        slope = joint / p[:, None] - pi
        loss = -np.log(p).sum() + (x[k:] ** 2).sum() / (2 * SPREAD**2)
        gradient = np.concatenate([-np.einsum("knc,nc->k", z, slope), -slope.sum(0) + x[k:] / SPREAD**2])
        return float(loss), gradient

    first = np.concatenate([np.full(k, 1 / k), np.zeros(classes)])
    if start is not None:
        first = np.concatenate([start.weight, start.offset])
    bounds = [(0.0, STEEPEST)] * k + [(None, None)] * classes
    best = minimize(objective, first, jac=True, method="L-BFGS-B", bounds=bounds, options={"maxiter": 200})
    return Fit(best.x[:k], best.x[k:], float(best.fun))
