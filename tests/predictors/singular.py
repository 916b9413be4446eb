"""Learning coefficients in closed form, and tempered posteriors integrated numerically."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import combinations

import numpy as np
from scipy import integrate
from scipy.stats import norm, qmc

Floats = np.ndarray


def deep_linear(widths: Sequence[int], rank: int) -> tuple[float, int]:
    """λ and multiplicity of a deep linear network of these widths whose true map has a rank (Aoyagi 2024).

    Consideration on the learning efficiency of multiple-layered neural networks with linear units, Neural Networks
    172, 106132, Theorem 1; its set of layers is found by trying all.
    """
    excess = [w - rank for w in widths]
    for count in range(1, len(widths) + 1):
        for chosen in combinations(range(len(widths)), count):
            inside = [excess[k] for k in chosen]
            outside = [excess[k] for k in range(len(widths)) if k not in chosen]
            ell, total = count - 1, sum(inside)
            if ell < 1 or (outside and max(inside) >= min(outside)) or total < ell * max(inside):
                continue
            if outside and total >= ell * min(outside):
                continue
            a = total - (math.ceil(total / ell) - 1) * ell
            pairs = (total**2 - sum(m**2 for m in inside)) / 2
            free = a * (ell - a) / (4 * ell) - ell * (ell - 1) / 4 * (total / ell) ** 2 + pairs / 2
            return (rank * (widths[0] + widths[-1]) - rank**2) / 2 + free, a * (ell - a) + 1
    raise AssertionError("no set of layers fits")


def reduced_rank(inputs: int, outputs: int, hidden: int, rank: int) -> tuple[float, int]:
    """λ and multiplicity of reduced-rank regression.

    Aoyagi & Watanabe 2005, Stochastic complexities of reduced rank regression in Bayesian estimation, Neural Networks
    18, 924–933, Theorem 1.
    """
    m, n, h, r = outputs, inputs, hidden, rank
    if m + h < n + r:
        return (h * m - h * r + n * r) / 2, 1
    if n + h < m + r:
        return (h * n - h * r + m * r) / 2, 1
    if m + n < h + r:
        return m * n / 2, 1
    odd = (m + n + h + r) % 2
    return (2 * (h + r) * (m + n) - (m - n) ** 2 - (h + r) ** 2 + odd) / 8, 1 + odd


def by_quadrature(loss: Callable[[float], float], scale: float, gamma: float) -> float:
    """E[scale · L(w)] over exp(−scale · L(w) − γ/2 w²), w a number and L even."""

    def density(w: float) -> float:
        return math.exp(-scale * loss(w) - gamma * w * w / 2)

    far = 12 / math.sqrt(gamma)
    knots = [far * 4.0**-k for k in range(1, 14)]
    mass, mean = (
        sum(
            integrate.quad(f, a, b, epsabs=0, epsrel=1e-11)[0]
            for a, b in zip([0.0, *sorted(knots)], [*sorted(knots), far], strict=True)
        )
        for f in (density, lambda w: scale * loss(w) * density(w))
    )
    return mean / mass


def product_by_quadrature(scale: float, gamma: float) -> float:
    """E[scale · w₁²w₂²/2]: the integral over w₂ is Gaussian, that over w₁ = e^t is done on a fine grid."""
    t = np.linspace(-25, math.log(12 / math.sqrt(gamma)), 200_001)
    precision = scale * np.exp(2 * t) + gamma
    weight = np.exp(t - gamma * np.exp(2 * t) / 2) / np.sqrt(precision)
    return float((weight * scale * np.exp(2 * t) / precision).sum() / weight.sum() / 2)


def two_layers_by_points(target: Floats, a0: Floats, b0: Floats, scale: float, gamma: float) -> float:
    """E[scale · ½‖BA − M‖²] over exp(−scale · ½‖BA − M‖² − γ/2 (‖A − A₀‖² + ‖B − B₀‖²)).

    Given A the rows of B are normal, so that only A is integrated numerically, over Sobol points of its localisation.
    """
    points = qmc.Sobol(a0.size, seed=0).random_base2(17)
    a = a0 + norm.ppf(np.clip(points, 1e-12, 1 - 1e-12)).reshape(-1, *a0.shape) / math.sqrt(gamma)
    precision = scale * a @ a.transpose(0, 2, 1) + gamma * np.eye(len(a0))
    inverse = np.linalg.inv(precision)
    right = scale * target @ a.transpose(0, 2, 1) + gamma * b0  # (points, out, hidden)
    mean = right @ inverse
    least = scale * (target**2).sum() + gamma * (b0**2).sum() - (right * mean).sum((1, 2))
    log_weight = -least / 2 - len(target) / 2 * np.linalg.slogdet(precision)[1]
    spread = len(target) * (inverse * (a @ a.transpose(0, 2, 1))).sum((1, 2))  # tr(AᵀP⁻¹A) for every row of B
    rise = scale / 2 * (((mean @ a - target) ** 2).sum((1, 2)) + spread)
    weight = np.exp(log_weight - log_weight.max())
    return float((weight * rise).sum() / weight.sum())
