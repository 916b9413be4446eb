"""Capacity of one linear threshold unit, where it is known: two bits a weight (Cover 1965).

A unit sign(w·x) with d weights, no bias. Of the 2^P labellings of P points in general position it realises
C(P, d) = 2 Σ_{k<d} binom(P − 1, k): all of them up to P = d, half of them at P = 2d.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linprog, minimize
from scipy.special import expit, logsumexp

__all__ = ["linear_unit_bits", "log2_dichotomies", "realisable", "separable"]

LN2 = math.log(2.0)
Points = NDArray[np.float64]


def log2_dichotomies(points: int, weights: int) -> float:
    """Compute log2 C(P, d), exactly (Cover 1965, eq. 3).

    Args:
        points: P.
        weights: d.

    Returns:
        Bits.
    """
    terms = [math.lgamma(points) - math.lgamma(k + 1) - math.lgamma(points - k) for k in range(min(weights, points))]
    return 1.0 + float(logsumexp(terms)) / LN2


def realisable(points: int, weights: int) -> float:
    """Compute the probability that a random labelling of P points in general position is realised: C(P, d)/2^P; exact.

    Args:
        points: P.
        weights: d.

    Returns:
        A probability.
    """
    return min(1.0, math.exp(LN2 * (log2_dichotomies(points, weights) - points)))


def separable(x: Points, y: NDArray[np.int64]) -> bool:
    """Decide whether some w has y_i (w·x_i) > 0 for all i, by linear programming (a strict inequality scales to ≥ 1).

    Args:
        x: points (P, d).
        y: labels (P,), 0 or 1.

    Returns:
        True where one has.
    """
    signed = x * (2 * y - 1)[:, None]
    d = x.shape[1]
    solution = linprog(np.zeros(d), A_ub=-signed, b_ub=-np.ones(len(x)), bounds=[(None, None)] * d, method="highs")
    return bool(solution.status == 0)


def linear_unit_bits(x: Points, y: NDArray[np.int64]) -> float:
    """Compute the bits of the labels the best unit p(y = 1) = σ(w·x) stores: P − least total loss/ln 2.

    P where the labels are separable (the loss goes to 0 as w grows); else the loss is convex with one minimum.

    Args:
        x: points (P, d).
        y: labels (P,), 0 or 1.

    Returns:
        Bits.
    """
    if separable(x, y):
        return float(len(x))
    signed = x * (2 * y - 1)[:, None]

    def loss(w: Points) -> tuple[float, Points]:
        z = signed @ w
        return float(np.logaddexp(0, -z).sum()), -signed.T @ expit(-z)

    best = minimize(loss, np.zeros(x.shape[1]), jac=True, method="BFGS", options={"gtol": 1e-6, "maxiter": 2000})
    return len(x) - float(best.fun) / LN2
