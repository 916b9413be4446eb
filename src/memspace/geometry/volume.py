"""How many configurations are as good as this one: the prior mass of {θ : KL(θ*‖θ) ≤ ε}, in bits.

Lebesgue volume would be infinite along flat directions and the Riemannian one zero, so a prior around θ* is stated:
normal of standard deviation l, or a box of half-width l in the eigenbasis of F. Where KL = ½ δᵀFδ the mass is the lower
tail of Σ w_k u_k² with w_k = ½ l² λ_k, found by numerical inversion; Monte-Carlo by subset simulation on the KL
itself says how far that holds. Directions in which nothing changes cost no bits; those that a symmetry explains are
counted.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.optimize import brentq
from scipy.special import log_ndtr
from torch import Tensor

from memspace.geometry.stacked import PathProbe
from memspace.intervals import around

__all__ = ["Volume", "admissible_bits", "kl_of"]

# Gauss–Legendre nodes on [0, 1] for moments of the box's coordinates.
NODES = 200
REACH, POINTS = 4.5, 601  # of the contour integral: its integrand falls below rounding within them


FEW = 64  # directions of a box integrated one by one; of more, the largest, or all by the saddle point if at least
ALIKE = 20  # of them count alike


@dataclass(frozen=True)
class Volume:
    """−log₂ of a prior mass, in bits.

    Args:
        bits: the estimate.
        error: its standard error (of a formula: how far it may be off).
        df: degrees of freedom behind the error, None for many.
        levels: of subset simulation.
        evaluations: of the KL.
    """

    bits: float
    error: float = 0.0
    df: float | None = None
    levels: int = 0
    evaluations: int = 0

    @property
    def interval(self) -> tuple[float, float]:
        """95% interval of the bits, by Student's t."""
        return around(self.bits, self.error, self.df, lower=0.0)


def admissible_bits(eigenvalues: Tensor, radius: float, epsilon: float, *, prior: str = "normal") -> Volume:
    """Compute −log₂ Pr(½ Σ λ_k δ_k² ≤ ε) for δ ~ N(0, l²) or uniform in [−l, l], in the eigenbasis of F.

    Normal: the Laplace transform Π (1 + 2 w_k s)^-½ / s, w_k = ½ l² λ_k, inverted numerically along a contour through
    its saddle point: exact to rounding for any number of directions. Box: one direction is integrated after the other
    (to 1e-3 bits); beyond 64 directions, 20 or more of which count alike, by the saddle-point formula (Lugannani &
    Rice 1980), whose relative error in the mass, 1/12n, is the ``error``.

    Args:
        eigenvalues: of F; zeros may be left out, they cost nothing.
        radius: l.
        epsilon: ε, nats.
        prior: ``normal`` or ``box``.

    Returns:
        The bits, with the error of the formula.

    Raises:
        ValueError: an unknown prior, or a radius or ε that is not positive.
    """
    if prior not in ("normal", "box") or not radius > 0 or not epsilon > 0:
        raise ValueError(f"needs prior normal or box and positive radius and epsilon, got {prior}, {radius}, {epsilon}")
    w = eigenvalues.double().cpu().clamp_min(0) * (0.5 * radius**2)
    w = w[w > 1e-12 * float(w.max())] if len(w) and float(w.max()) > 0 else w[:0]
    if not len(w) or (prior == "box" and epsilon >= float(w.sum())):
        return Volume(0.0)
    if prior == "normal":
        return Volume(max(0.0, -_inverted(w.numpy(), epsilon)) / math.log(2))
    return _of_box(w.sort(descending=True).values, epsilon)


def _inverted(w: NDArray[np.float64], epsilon: float) -> float:
    """Log Pr(Σ w_k z_k² ≤ ε), z normal: (1/2πi) ∫ exp(sε − ½ Σ log(1 + 2 w_k s)) ds/s through the real saddle point.

    The contour leaves the saddle upright and leans towards the branch cut on the negative axis, where e^{sε} decays;
    the trapezoidal rule converges geometrically there (Trefethen & Weideman 2014).
    """

    def slope(s: float) -> float:
        return epsilon - float((w / (1 + 2 * w * s)).sum()) - 1 / s

    low = high = 1 / epsilon
    while slope(high) < 0:
        high *= 2
    while slope(low) > 0:
        low /= 2
    saddle = float(brentq(slope, low, high, rtol=1e-12)) if low < high else low
    step = 1 / math.sqrt(float((2 * w**2 / (1 + 2 * w * saddle) ** 2).sum()) + 1 / saddle**2)
    x = np.linspace(-REACH, REACH, POINTS)
    u, lean = np.sinh(x), 0.8
    s = saddle + step * (1j * u - lean * (np.sqrt(1 + u**2) - 1))
    turn = step * np.cosh(x) * (1j - lean * u / np.sqrt(1 + u**2))
    exponent = s * epsilon - np.log(s)
    for part in np.array_split(w, -(-len(w) // 4096)):
        exponent -= 0.5 * np.log(1 + 2 * np.outer(s, part)).sum(1)
    top = float(exponent.real.max())
    total = (np.exp(exponent - top) * turn).sum() * (x[1] - x[0]) / (2j * math.pi)
    return top + math.log(float(total.real))


def _of_box(w: Tensor, epsilon: float) -> Volume:
    """The box: exact for few directions or where few count, else the saddle point."""
    t = _tilt(w, epsilon)
    first, second = _box_each(w, t)
    alike = float(second.sum()) ** 2 / float(second.square().sum())
    if len(w) > FEW and alike > ALIKE:
        k = float(_box(w, t)[0])
        root = math.copysign(math.sqrt(max(0.0, 2 * (t * epsilon - k))), t)
        scaled = t * math.sqrt(float(second.sum()))
        bits = -_log_tail(root, scaled) / math.log(2)
        return Volume(max(0.0, bits), 1 / (12 * alike * math.log(2)))
    rest = float(first[FEW:].sum())  # what lies beyond is small next to the spread of these
    return Volume(max(0.0, -_convolved(w[:FEW].numpy(), epsilon - rest)) / math.log(2))


def _tilt(w: Tensor, epsilon: float) -> float:
    """The t at which the tilted law of Σ w u² has mean ε."""
    mean = _box(w, 0.0)[1]
    if abs(mean - epsilon) < 1e-9 * mean:
        epsilon *= 1 - 1e-6  # the formula has a removable singularity at the mean

    def slope(t: float) -> float:
        return _box(w, t)[1] - epsilon

    low, high = 0.0, 0.0
    if epsilon < mean:
        low = -1.0 / float(w.max())
        while slope(low) > 0:
            low *= 2
    else:
        high = 1.0 / float(w.max())
        while slope(high) < 0:
            high *= 2
    return float(brentq(slope, low, high, xtol=1e-14, rtol=1e-13))


def _convolved(w: NDArray[np.float64], epsilon: float) -> float:
    """Log Pr(Σ w_k u_k² ≤ ε), u uniform in [0, 1], by one quadrature per direction.

    F_k(x) = ∫ F_{k−1}(x − w_k u²) du over u ≤ min(1, √(x/w_k)); log F is kept over log x, in which a power law, the
    behaviour near 0, is a line.
    """
    nodes, weight = np.polynomial.legendre.leggauss(96)
    angle, weight = (nodes + 1) * math.pi / 4, weight * math.pi / 4
    at = np.linspace(math.log(epsilon) - 30, math.log(epsilon), 3000)
    x = np.exp(at)
    log_f = np.minimum(0.0, 0.5 * (at - math.log(w[0])))
    for weight_k in w[1:]:
        reach = np.sqrt(np.minimum(1.0, x / weight_k))[:, None]
        u = reach * np.sin(angle)
        left = np.log(np.maximum(x[:, None] - weight_k * u**2, 1e-300))
        rise = (log_f[1] - log_f[0]) / (at[1] - at[0])
        inner = np.interp(left, at, log_f)
        inner = np.where(left < at[0], log_f[0] + rise * (left - at[0]), inner)
        top = inner.max(1, keepdims=True)
        mass = (np.exp(inner - top) * weight * reach * np.cos(angle)).sum(1)
        log_f = np.minimum(0.0, top[:, 0] + np.log(mass))
    return float(log_f[-1])


def _log_tail(r: float, u: float) -> float:
    """log(Φ(r) + φ(r)(1/r − 1/u)), by Barndorff-Nielsen's form, which stays positive: log Φ(r + log(u/r)/r)."""
    return float(log_ndtr(r + math.log(u / r) / r))


def _box(w: Tensor, t: float) -> tuple[float, float]:
    """Cumulant function of Σ w u², u uniform in [0, 1], and its derivative, by quadrature in the tilted law."""
    mass, first, _ = _moments(w, t)
    return float(mass.sum()), float(first.sum())


def _box_each(w: Tensor, t: float) -> tuple[Tensor, Tensor]:
    """Mean and variance of each w u² in the tilted law."""
    _, first, second = _moments(w, t)
    return first, second


def _moments(w: Tensor, t: float) -> tuple[Tensor, Tensor, Tensor]:
    """Per direction: log of the mass, mean and variance of w u² under exp(t w u²)."""
    # With t → −∞ the mass sits within 1/√(−tw) of 0: nodes are stretched to it.
    x, weight = _legendre()
    reach = (6 / (-t * w).clamp_min(1e-300).sqrt()).clamp(max=1.0) if t < 0 else torch.ones_like(w)
    square = w.unsqueeze(1) * (reach.unsqueeze(1) * x).square()
    top = max(0.0, t) * w.unsqueeze(1)
    density = (reach.unsqueeze(1) * weight) * (t * square - top).exp()
    mass = density.sum(1)
    first = (density * square).sum(1) / mass
    second = (density * square.square()).sum(1) / mass - first.square()
    return mass.log() + top.squeeze(1), first, second


def _legendre() -> tuple[Tensor, Tensor]:
    x, weight = np.polynomial.legendre.leggauss(NODES)
    return torch.as_tensor((x + 1) / 2), torch.as_tensor(weight / 2)


def kl_of(probe: PathProbe, centre: Tensor) -> Callable[[Tensor], Tensor]:
    """Make the map from a displacement of the weights to the mean KL(p_θ* ‖ p_θ*+δ) over the probe examples.

    Args:
        probe: the examples.
        centre: θ* (P,).

    Returns:
        Rows δ (k, P) ↦ (k,) nats.
    """
    law = probe.task.likelihood
    with torch.no_grad():
        f = probe.outputs(centre.unsqueeze(0))[0].double()

    def kl(delta: Tensor) -> Tensor:
        with torch.no_grad():
            g = probe.outputs(centre + delta).double()
            d = law.kl(f.expand_as(g), g) * probe.weight
        return d.flatten(2).sum(2).mean(1) if d.dim() > 2 else d.mean(1)

    return kl
