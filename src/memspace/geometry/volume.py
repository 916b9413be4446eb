"""How many configurations are as good as this one: the prior mass of {θ : KL(θ*‖θ) ≤ ε}, in bits.

Lebesgue volume would be infinite along flat directions and the Riemannian one zero, so a prior around θ* is stated:
normal of standard deviation l, or a box of half-width l in the eigenbasis of F. Where KL = ½ δᵀFδ the mass is the lower
tail of Σ w_k u_k² with w_k = ½ l² λ_k, found by the saddle-point formula; Monte-Carlo by subset simulation on the KL
itself says how far that holds. Directions in which nothing changes cost no bits; those that a symmetry explains are
counted.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from scipy.optimize import brentq
from scipy.special import log_ndtr
from torch import Tensor

from memspace.geometry.stacked import Probe

__all__ = ["Volume", "admissible_bits", "kl_of", "subset_bits"]

# Gauss–Legendre nodes on [0, 1] for moments of the box's coordinates.
NODES = 200


@dataclass(frozen=True)
class Volume:
    """−log₂ of a prior mass, in bits.

    Args:
        bits: the estimate; error: its standard error (0 for the saddle point, whose own error is about 1/12n in
            relative mass, n the curved directions).
        levels: of subset simulation; evaluations: of the KL.
    """

    bits: float
    error: float = 0.0
    levels: int = 0
    evaluations: int = 0


def admissible_bits(eigenvalues: Tensor, radius: float, epsilon: float, *, prior: str = "normal") -> Volume:
    """−log₂ Pr(½ Σ λ_k δ_k² ≤ ε) for δ ~ N(0, l²) or uniform in [−l, l], each coordinate of the eigenbasis alike.

    By the saddle-point formula of Lugannani & Rice (1980); exact as the number of directions grows, and within
    hundredths of a bit for a handful.

    Args:
        eigenvalues: of F; zeros may be left out, they cost nothing.
        radius: l; epsilon: nats.

    Raises:
        ValueError: an unknown prior, or a radius or ε that is not positive.
    """
    if prior not in ("normal", "box") or not radius > 0 or not epsilon > 0:
        raise ValueError(f"needs prior normal or box and positive radius and epsilon, got {prior}, {radius}, {epsilon}")
    w = eigenvalues.double().clamp_min(0) * (0.5 * radius**2)
    w = w[w > 1e-12 * float(w.max())] if len(w) and float(w.max()) > 0 else w[:0]
    if not len(w):
        return Volume(0.0)
    cumulants = _normal if prior == "normal" else _box
    most = float("inf") if prior == "normal" else float(w.sum())
    if epsilon >= most:
        return Volume(0.0)
    mean = cumulants(w, 0.0)[1]
    if abs(mean - epsilon) < 1e-9 * mean:
        epsilon *= 1 - 1e-6  # the formula has a removable singularity at the mean

    def slope(t: float) -> float:
        return cumulants(w, t)[1] - epsilon

    low, high = 0.0, 0.0
    if epsilon < mean:
        low = -1.0 / float(w.max())
        while slope(low) > 0:
            low *= 2
    else:
        high = 0.5 / float(w.max()) * (1 - 1e-12) if prior == "normal" else 1.0 / float(w.max())
        while prior == "box" and slope(high) < 0:
            high *= 2
    t = float(brentq(slope, low, high, xtol=1e-14, rtol=1e-13))
    k, _, second = cumulants(w, t)
    root = math.copysign(math.sqrt(max(0.0, 2 * (t * epsilon - k))), t)
    scaled = t * math.sqrt(second)
    return Volume(-_log_tail(root, scaled) / math.log(2))


def _log_tail(r: float, u: float) -> float:
    """log(Φ(r) + φ(r)(1/r − 1/u)), by Barndorff-Nielsen's form, which stays positive: log Φ(r + log(u/r)/r)."""
    return float(log_ndtr(r + math.log(u / r) / r))


def _normal(w: Tensor, t: float) -> tuple[float, float, float]:
    """Cumulant function of Σ w z² and its first two derivatives."""
    rest = 1 - 2 * t * w
    return float(-0.5 * rest.log().sum()), float((w / rest).sum()), float((2 * w.square() / rest.square()).sum())


def _box(w: Tensor, t: float) -> tuple[float, float, float]:
    """The same for u uniform in [−1, 1], by quadrature in the tilted law."""
    # With t → −∞ the mass sits within 1/√(−tw) of 0: nodes are stretched to it.
    x, weight = _legendre()
    reach = (6 / (-t * w).clamp_min(1e-300).sqrt()).clamp(max=1.0) if t < 0 else torch.ones_like(w)
    u = reach.unsqueeze(1) * x
    square = w.unsqueeze(1) * u.square()
    top = max(0.0, t) * w.unsqueeze(1)
    density = (reach.unsqueeze(1) * weight) * (t * square - top).exp()
    mass = density.sum(1)
    first = (density * square).sum(1) / mass
    second = (density * square.square()).sum(1) / mass - first.square()
    return float((mass.log() + top.squeeze(1)).sum()), float(first.sum()), float(second.sum())


def _legendre() -> tuple[Tensor, Tensor]:
    import numpy as np

    x, weight = np.polynomial.legendre.leggauss(NODES)
    return torch.as_tensor((x + 1) / 2), torch.as_tensor(weight / 2)


def kl_of(probe: Probe, centre: Tensor) -> Callable[[Tensor], Tensor]:
    """Rows δ (k, P) ↦ mean KL(p_θ* ‖ p_θ*+δ) over the probe examples, (k,) nats."""
    law = probe.task.likelihood
    with torch.no_grad():
        f = probe.outputs(centre.unsqueeze(0))[0].double()

    def kl(delta: Tensor) -> Tensor:
        with torch.no_grad():
            g = probe.outputs(centre + delta).double()
            d = law.kl(f.expand_as(g), g) * probe.weight
        return d.flatten(2).sum(2).mean(1) if d.dim() > 2 else d.mean(1)

    return kl


def subset_bits(
    kl: Callable[[Tensor], Tensor],
    size: int,
    radius: float,
    epsilon: float,
    *,
    samples: int = 400,
    share: float = 0.2,
    chain: int = 8,
    repeats: int = 4,
    levels: int = 60,
    seed: int = 0,
) -> Volume:
    """−log₂ Pr_{δ ~ N(0, l²I)}(KL(δ) ≤ ε) by subset simulation (Au & Beck 2001), no quadratic approximation.

    Each level keeps the best ``share`` of the samples as threshold and moves them by ``chain`` steps that leave the
    prior unchanged (Cotter et al. 2013), refused where they leave the level.

    Args:
        kl: rows (k, size) → (k,); repeats: independent runs, whose spread is the error.
        levels: at most; a run that needs more stops at the bits reached, a lower bound.
    """
    generator = torch.Generator().manual_seed(seed)
    found, deepest, evaluations = [], 0, 0
    for _ in range(repeats):
        z = torch.randn(samples, size, generator=generator, dtype=torch.float64)
        value = kl(radius * z)
        evaluations += samples
        log_mass, step = 0.0, 0.5
        for level in range(levels):
            deepest = max(deepest, level)
            order = value.argsort()
            keep = max(1, int(share * samples))
            threshold = float(value[order[keep - 1]])
            if threshold <= epsilon:
                log_mass += math.log(float((value <= epsilon).double().mean()))
                break
            log_mass += math.log(keep / samples)
            again = order[:keep].repeat(-(-samples // keep))[:samples]
            z, value = z[again], value[again]
            for _ in range(chain):
                fresh = torch.randn(samples, size, generator=generator, dtype=torch.float64)
                moved = math.sqrt(1 - step**2) * z + step * fresh
                there = kl(radius * moved)
                evaluations += samples
                accepted = there <= threshold
                z, value = torch.where(accepted.unsqueeze(1), moved, z), torch.where(accepted, there, value)
                # Kept near the acceptance at which such chains move fastest.
                step = min(1.0, max(1e-3, step * math.exp(float(accepted.double().mean()) - 0.35)))
        found.append(-log_mass / math.log(2))
    bits = torch.tensor(found, dtype=torch.float64)
    error = float(bits.std()) / repeats**0.5 if repeats > 1 else math.nan
    return Volume(float(bits.mean()), error, deepest + 1, evaluations)
