"""Consequences of any output law by calculation, for laws without a closed form."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

if TYPE_CHECKING:
    from memspace.task.law import Likelihood
    from memspace.task.laws.definition import LawDefinition

__all__ = [
    "best_constant",
    "bisected_tails",
    "flat_coordinates",
    "quantile_residuals",
    "squared_arc",
    "squared_shortest",
]

SMALL, TERMS = 1e-2, 9  # arcsin²(√u) by its series below this u: what is left out is under 1e-17 of it
PANELS, NODES = 16, 8  # of the quadrature of ∫√h df
MOST = 2**24  # numbers of a root in memory at a time
SIDES, ROUNDS = 32, 200  # of the polygon that stands for a shortest path, and of the search for it
HALVINGS = 60  # of (0, 1): beyond the digits of float64
NORMAL = 9  # nodes of the mean over normal outputs
FAR = 8.0  # standard deviations beyond which a probability of float64 rounds to 0 or 1
STEPS, SETTLED = 200, 1e-12


def squared_arc(chord: Tensor, radius: float) -> Tensor:
    """Return the squared arc over a chord of a sphere, smooth down to 0.

    Args:
        chord: squared lengths of the chords, any shape.
        radius: of the sphere; infinite: the chord itself.

    Returns:
        (2R)² arcsin²(chord/2R), of the shape of ``chord``.
    """
    if math.isinf(radius):
        return chord
    u = (chord / (2 * radius) ** 2).clamp(max=1.0)
    small = u < SMALL
    series, power = torch.zeros_like(u), torch.ones_like(u)
    near = torch.where(small, u, torch.zeros_like(u))
    for k in range(1, TERMS + 1):  # arcsin²(√u) = Σ_k (4u)^k / (2k² (2k choose k)), smooth where √u is not
        power = power * near
        series = series + 4**k / (2 * k**2 * math.comb(2 * k, k)) * power
    far = torch.asin(torch.where(small, torch.full_like(u, 0.5), u).sqrt()).square()
    return (2 * radius) ** 2 * torch.where(small, series, far)


def flat_coordinates(law: LawDefinition, f: Tensor) -> Tensor:
    """Integrate φ_c = ∫₀^{f_c} √H_cc df_c by Gauss and Legendre's rule on 16 panels.

    The value comes from 128 nodes; its derivatives, up to the eighth, from the same rule on an interval of no length.

    Args:
        law: with independent outputs.
        f: outputs (..., C).

    Returns:
        (..., C), nats^½.
    """
    start = f.detach()
    with torch.no_grad():
        value = _integral(law, torch.zeros_like(start), start, PANELS, NODES)
    return value + _integral(law, start, f, 1, NODES // 2)


def _integral(law: LawDefinition, start: Tensor, end: Tensor, panels: int, count: int) -> Tensor:
    """∫ √H_cc df_c from ``start`` to ``end``, by ``count`` nodes on each panel."""
    nodes, weights = np.polynomial.legendre.leggauss(count)
    shares = ((np.arange(panels)[:, None] + (nodes + 1) / 2) / panels).flatten()
    at = torch.as_tensor(shares, dtype=end.dtype, device=end.device).reshape(-1, *[1] * end.dim())
    weight = torch.as_tensor(np.tile(weights / (2 * panels), panels), dtype=end.dtype, device=end.device)
    total = torch.zeros_like(end)
    for part in torch.split(torch.arange(len(at)), max(1, MOST // max(1, end.numel() * end.shape[-1]))):
        slope = law.fisher_root(start + at[part] * (end - start)).square().sum(-1).sqrt()
        total = total + torch.tensordot(weight[part], slope, 1)
    return (end - start) * total


def squared_shortest(law: LawDefinition, f: Tensor, f2: Tensor) -> Tensor:
    """Find the shortest path between two outputs and return its squared Fisher–Rao length.

    Minimises the energy S Σ dᵀH(middle)d of a polygon of S = 32 sides, starting at the straight line. At the minimum
    the speed is constant and the energy is the squared length. Corners are offsets from the straight line that stay
    constant when the result is differentiated. First derivatives are exact (the minimum does not see the offsets),
    further ones at f = f2.

    Args:
        law: any.
        f: outputs (..., C).
        f2: outputs (..., C).

    Returns:
        (...), nats; relative error of the order of 1/S² where the search ended.
    """
    share = torch.linspace(0, 1, SIDES + 1, dtype=f.dtype, device=f.device).reshape(-1, *[1] * f.dim())

    def energy(start: Tensor, end: Tensor, inner: Tensor) -> Tensor:
        corners = start + share * (end - start) + torch.nn.functional.pad(inner, [0, 0] * f.dim() + [1, 1])
        side, middle = corners[1:] - corners[:-1], (corners[1:] + corners[:-1]) / 2
        along = (law.fisher_root(middle).mT @ side.unsqueeze(-1)).squeeze(-1)
        return SIDES * along.square().sum(-1).sum(0)

    start, end = f.detach(), f2.detach()
    # In sine waves of amplitude 1/k every offset costs about alike: the search needs few steps, whatever S is.
    waves = torch.arange(1, SIDES, dtype=f.dtype, device=f.device)
    basis = torch.sin(math.pi / SIDES * waves.unsqueeze(1) * waves) / waves
    with torch.enable_grad():
        amplitude = torch.zeros(SIDES - 1, *f.shape, dtype=f.dtype, device=f.device, requires_grad=True)
        straight = energy(start, end, amplitude).detach()
        unit = torch.where(straight > 0, straight, torch.ones_like(straight))
        search = torch.optim.LBFGS([amplitude], max_iter=ROUNDS, line_search_fn="strong_wolfe", tolerance_grad=1e-9)

        def closure() -> Tensor:
            total = (energy(start, end, torch.tensordot(basis, amplitude, 1)) / unit).sum()
            (amplitude.grad,) = torch.autograd.grad(total, amplitude)
            return total

        search.step(closure)  # type: ignore[no-untyped-call]
    return energy(f, f2, torch.tensordot(basis, amplitude.detach(), 1))


def bisected_tails(law: LawDefinition, y: Tensor, f: Tensor) -> tuple[Tensor, Tensor]:
    """Find P(Y < y) and P(Y ≤ y) by halving intervals of u until quantile(f, u) passes y.

    Args:
        law: with independent outputs, whose labels are numbers.
        y: labels of the shape of f.
        f: outputs (..., C).

    Returns:
        Two tensors of the shape of f, float64, to 2⁻⁵³.
    """
    f, y = f.double(), y.double()

    def reached(strictly: bool) -> Tensor:
        low, high = torch.zeros_like(f), torch.ones_like(f)
        for _ in range(HALVINGS):
            middle = (low + high) / 2
            label = law.quantile(f, middle.clamp(2.0**-60, 1 - 2.0**-53)).double()
            under = label < y if strictly else label <= y
            low, high = torch.where(under, middle, low), torch.where(under, high, middle)
        return (low + high) / 2

    upto = reached(False)
    return (upto, upto) if law.continuous else (reached(True), upto)


def quantile_residuals(law: LawDefinition, y: Tensor, f: Tensor, spread: Tensor, u: Tensor) -> Tensor | None:
    """Return Φ⁻¹(P(Y < y) + u P(Y = y)) averaged over outputs that are normal around f.

    Args:
        law: any.
        y: (n, C) labels.
        f: (n, C) means of the outputs.
        spread: (n, C, C) their covariance, of which the diagonal is used.
        u: (..., n, C) in (0, 1).

    Returns:
        (..., n, C), cut at ±8; None where the law has no ``tails``.
    """
    deviation = spread.diagonal(dim1=-2, dim2=-1).clamp_min(0).sqrt()
    nodes, weights = np.polynomial.hermite_e.hermegauss(NORMAL)
    below, upto = torch.zeros_like(f), torch.zeros_like(f)
    for node, weight in zip(nodes, weights / weights.sum(), strict=True):
        tails = law.tails(y, f + float(node) * deviation)
        if tails is None:
            return None
        below, upto = below + float(weight) * tails[0], upto + float(weight) * tails[1]
    z: Tensor = torch.special.ndtri((below + u * (upto - below)).clamp(0.0, 1.0))
    return z.clamp(-FAR, FAR)


def best_constant(law: Likelihood, y: Tensor, outputs: int) -> Tensor:
    """Minimise the mean loss of a constant output by Fisher scoring with halved steps, from 0.

    Args:
        law: any.
        y: labels of any number of examples and positions.
        outputs: C.

    Returns:
        (C,) float64.
    """
    y = y.reshape(-1) if law.classes(outputs) is not None else y.reshape(-1, y.shape[-1])
    best = torch.zeros(outputs, dtype=torch.float64, device=y.device)
    counted = law.weight(best.expand(len(y), -1), y)

    def loss(at: Tensor) -> float:
        return float((law.nll(at.expand(len(y), -1), y) * counted).sum() / counted.sum())

    least = loss(best)
    for _ in range(STEPS):
        slope = (law.residual(best.expand(len(y), -1), y) * counted.unsqueeze(-1)).sum(0) / counted.sum()
        root = law.fisher_root(best)
        h = root @ root.mT
        step = torch.linalg.lstsq(h.cpu(), slope.cpu().unsqueeze(-1), driver="gelsd").solution.squeeze(-1).to(best)
        now = loss(best - step)
        while not now < least and float(step.abs().max()) > SETTLED:
            step = step / 2
            now = loss(best - step)
        if not now < least:
            break
        best, least = best - step, now
    return best
