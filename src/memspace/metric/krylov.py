"""Krylov methods on a symmetric positive semi-definite operator given by products: Lanczos and block Lanczos.

An operator takes a stack of vectors (k, P) and gives their products (k, P): what one linearisation serves is asked
for at once.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

__all__ = [
    "Eigenpairs",
    "Operator",
    "Tridiagonal",
    "lanczos",
    "rademacher",
    "top_eigenpairs",
]

Operator = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Tridiagonal:
    """Lanczos: A ≈ V T Vᵀ on the Krylov space of a start vector; ``nodes``/``weights`` its Gauss quadrature."""

    nodes: Tensor
    weights: Tensor
    vectors: Tensor
    basis: Tensor


def lanczos(operator: Operator, starts: Tensor, steps: int) -> list[Tridiagonal]:
    """``steps`` of Lanczos from each of the starts (k, P), with full reorthogonalisation, float64.

    The runs go in step, one stacked product each; a run stops early on an invariant subspace.
    """
    starts = starts.double()
    bases = [[q] for q in starts / starts.norm(dim=1, keepdim=True)]
    alphas: list[list[float]] = [[] for _ in bases]
    betas: list[list[float]] = [[] for _ in bases]
    active = list(range(len(bases)))
    for k in range(steps):
        products = operator(torch.stack([bases[i][-1] for i in active])).double()
        still = []
        for i, w in zip(active, products, strict=True):
            alphas[i].append(float(bases[i][-1] @ w))
            held = torch.stack(bases[i])
            for _ in range(2):  # twice is enough (Kahan)
                w = w - held.t() @ (held @ w)
            beta = float(w.norm())
            if k + 1 == steps or beta < 1e-12 * max(1.0, abs(alphas[i][0])):
                continue
            betas[i].append(beta)
            bases[i].append(w / beta)
            still.append(i)
        active = still
        if not active:
            break
    return [_tridiagonal(a, b, basis) for a, b, basis in zip(alphas, betas, bases, strict=True)]


def _tridiagonal(alphas: Sequence[float], betas: Sequence[float], basis: Sequence[Tensor]) -> Tridiagonal:
    off = torch.tensor(list(betas), dtype=torch.float64)
    t = torch.diag(torch.tensor(list(alphas), dtype=torch.float64)) + torch.diag(off, 1) + torch.diag(off, -1)
    nodes, vectors = torch.linalg.eigh(t)
    return Tridiagonal(nodes.clamp_min(0), vectors[0].square(), vectors, torch.stack(list(basis)))


@dataclass(frozen=True)
class Eigenpairs:
    """The largest eigenvalues and their vectors.

    Args:
        values: (k,), largest first.
        vectors: (k, P), orthonormal rows.
        residuals: ‖F v − λ v‖/λ of each; an eigenvalue of F lies within λ·residual of λ.
        products: how many products F v it took (0 where the spectrum is at hand).
        converged: every residual is within the tolerance asked for.
    """

    values: Tensor
    vectors: Tensor
    residuals: Tensor
    products: int
    converged: bool

    @staticmethod
    def exact(values: Tensor, vectors: Tensor) -> Eigenpairs:
        """From a spectrum at hand."""
        return Eigenpairs(values, vectors, torch.zeros_like(values), 0, True)


def top_eigenpairs(
    operator: Operator,
    start: Tensor,
    k: int,
    *,
    tolerance: float,
    limit: int = 500,
) -> Eigenpairs:
    """The k largest eigenpairs by block Lanczos with full reorthogonalisation (Golub & Underwood 1977), float64.

    Args:
        operator: positive semi-definite, on stacks.
        start: (b, P) block to start from: random, or vectors known to be near; multiplicities above b may be missed.
        tolerance: on ‖A v − λ v‖/λ of every pair. Eigenvalues converge with the square of it over the relative gap.
        limit: products at most, where the tolerance is not reached by then ``converged`` is False. The basis
            holds that many vectors.
    """
    size = start.shape[1]
    k, limit = min(k, size), min(limit, size)
    block = _orthonormal(start.double())[:limit]
    room = block.new_empty(min(limit, 4 * k + len(block)), size)
    h, held = block.new_zeros(0, 0), 0
    while True:
        image = operator(block).double()
        products = held + len(block)
        if products > len(room):
            room = torch.cat([room, room.new_empty(min(limit, 2 * products) - len(room), size)])
        room[held:products] = block
        basis = room[:products]
        rest, inside = _project_out(basis, image)
        h = torch.nn.functional.pad(h, (0, len(block), 0, len(block)))
        h[held:], h[:, held:] = inside, inside.t()
        theta, y = torch.linalg.eigh((h + h.t()) / 2)
        values, turn = theta.flip(0)[:k].clamp_min(0), y.flip(1)[:, :k].t()
        # What A moves a Ritz vector out of the basis by comes from the last block alone.
        out = ((turn[:, held:] @ (rest @ rest.t())) * turn[:, held:]).sum(1).clamp_min(0).sqrt()
        # Values that are rounding of the largest one have no relative accuracy to ask for.
        residuals = torch.where(values > 1e-12 * values[0], out / values.clamp_min(1e-300), torch.zeros_like(out))
        done = len(values) == k and bool((residuals <= tolerance).all())
        if done or products >= limit:
            break
        block = _next_block(basis, rest, float(image.norm()), len(start))
        if not len(block) or products + len(block) > limit:
            break
        held = products
    return Eigenpairs(values, turn @ basis, residuals, products, done)


def _project_out(basis: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
    """(the part of v outside an orthonormal basis, its coefficients inside)."""
    inside = v @ basis.t()
    v = torch.addmm(v, inside, basis, alpha=-1)
    return v.addmm_(v @ basis.t(), basis, alpha=-1), inside  # twice is enough (Kahan)


def _next_block(basis: Tensor, rest: Tensor, scale: float, width: int) -> Tensor:
    """An orthonormal block outside the basis: along ``rest``, or random where the Krylov space has closed."""
    q, r = torch.linalg.qr(rest.t())
    if float(r.diagonal().abs().min()) > 1e-5 * scale:  # scaled up by less than 1e5, it is outside to 1e-11 still
        straight: Tensor = q.t()
        return straight
    for v in (rest, None):
        block = torch.randn(width, basis.shape[1], dtype=basis.dtype, device=basis.device) if v is None else v
        floor = 1e-12 * scale
        for _ in range(2):  # what was small before scaling may have kept a part inside the basis
            block = _orthonormal(_project_out(basis, block)[0], floor)
            floor = 1e-10
        if len(block):
            return block
    return basis[:0]


def _orthonormal(v: Tensor, floor: float = 1e-10) -> Tensor:
    """Orthonormal rows of the same span; rows that add less than ``floor`` to it are left out."""
    q, r = torch.linalg.qr(v.t())
    rows: Tensor = q.t()[r.diagonal().abs() > floor].contiguous()
    return rows


def rademacher(count: int, size: int, generator: torch.Generator) -> Tensor:
    """±1 probes, (count, size), float64."""
    return torch.randint(0, 2, (count, size), generator=generator).double() * 2 - 1


def mean_and_error(values: Sequence[float]) -> tuple[float, float]:
    """Mean of independent estimates and its standard error."""
    n = len(values)
    mean = math.fsum(values) / n
    if n < 2:
        return mean, math.nan
    return mean, math.sqrt(math.fsum((v - mean) ** 2 for v in values) / (n - 1) / n)
