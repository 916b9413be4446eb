"""Krylov methods on a symmetric positive semi-definite operator given by products: Lanczos and block Lanczos.

An operator takes a stack of vectors (k, P) and returns their products (k, P), so that one linearisation of the network
serves all of them.
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
    """Lanczos: A ≈ V T Vᵀ on the Krylov space of a start vector, with its Gauss quadrature.

    Args:
        nodes: (steps,) eigenvalues of T, ascending.
        weights: (steps,) squared first components of T's eigenvectors, summing to 1.
        vectors: (steps, steps) eigenvectors of T, in columns.
        basis: V (steps, P), orthonormal rows.
    """

    nodes: Tensor
    weights: Tensor
    vectors: Tensor
    basis: Tensor


def lanczos(operator: Operator, starts: Tensor, steps: int) -> list[Tridiagonal]:
    """Run Lanczos from several vectors, with full reorthogonalisation, float64.

    The runs advance together, one stacked product a step; a run stops early on an invariant subspace.

    Args:
        operator: v ↦ A v on stacks (k, P), positive semi-definite.
        starts: (k, P).
        steps: at most.

    Returns:
        One decomposition a start.
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
            basis = torch.stack(bases[i])
            for _ in range(2):  # twice is enough (Kahan)
                w = w - basis.t() @ (basis @ w)
            beta = float(w.norm())
            if k + 1 == steps or beta < 1e-12 * max(1.0, abs(alphas[i][0])):
                continue
            betas[i].append(beta)
            bases[i].append(w / beta)
            still.append(i)
        active = still
        if not active:
            break
    return [_tridiagonal(a, b, q) for a, b, q in zip(alphas, betas, bases, strict=True)]


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
        residuals: (k,) ‖F v − λ v‖/λ; an eigenvalue of F lies within λ·residual of λ.
        products: number of products F v computed (0 where the decomposition is stored).
        converged: whether every residual is within the tolerance.
    """

    values: Tensor
    vectors: Tensor
    residuals: Tensor
    products: int
    converged: bool

    @staticmethod
    def exact(values: Tensor, vectors: Tensor) -> Eigenpairs:
        """Build pairs of a stored decomposition, with residuals of zero.

        Args:
            values: (k,), largest first.
            vectors: (k, P), orthonormal rows.

        Returns:
            The pairs.
        """
        return Eigenpairs(values, vectors, torch.zeros_like(values), 0, True)


def top_eigenpairs(
    operator: Operator,
    start: Tensor,
    k: int,
    *,
    tolerance: float,
    limit: int = 500,
) -> Eigenpairs:
    """Find the k largest eigenpairs by block Lanczos with full reorthogonalisation (Golub & Underwood 1977), float64.

    Args:
        operator: v ↦ A v on stacks, positive semi-definite.
        start: (b, P) block to start from: random, or vectors known to be near; multiplicities above b may be missed.
        k: number of pairs.
        tolerance: on ‖A v − λ v‖/λ of every pair. Eigenvalues converge with the square of it over the relative gap.
        limit: products at most, and vectors of the basis; ``converged`` is False where they ran out.

    Returns:
        The pairs with their residuals, at most k and P.
    """
    size = start.shape[1]
    k, limit = min(k, size), min(limit, size)
    block = _orthonormal(start.double())[:limit]
    room = block.new_empty(min(limit, 4 * k + len(block)), size)
    h, filled = block.new_zeros(0, 0), 0
    while True:
        image = operator(block).double()
        products = filled + len(block)
        if products > len(room):
            room = torch.cat([room, room.new_empty(min(limit, 2 * products) - len(room), size)])
        room[filled:products] = block
        basis = room[:products]
        rest, inside = _project_out(basis, image)
        h = torch.nn.functional.pad(h, (0, len(block), 0, len(block)))
        h[filled:], h[:, filled:] = inside, inside.t()
        theta, y = torch.linalg.eigh((h + h.t()) / 2)
        values, turn = theta.flip(0)[:k].clamp_min(0), y.flip(1)[:, :k].t()
        # The part of A times a Ritz vector that lies outside the basis comes from the last block alone.
        out = ((turn[:, filled:] @ (rest @ rest.t())) * turn[:, filled:]).sum(1).clamp_min(0).sqrt()
        # Values that are rounding of the largest one have no relative accuracy.
        residuals = torch.where(values > 1e-12 * values[0], out / values.clamp_min(1e-300), torch.zeros_like(out))
        done = len(values) == k and bool((residuals <= tolerance).all())
        if done or products >= limit:
            break
        block = _next_block(basis, rest, float(image.norm()), len(start))
        if not len(block) or products + len(block) > limit:
            break
        filled = products
    return Eigenpairs(values, turn @ basis, residuals, products, done)


def _project_out(basis: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
    """(the part of v outside an orthonormal basis, its coefficients inside)."""
    inside = v @ basis.t()
    v = torch.addmm(v, inside, basis, alpha=-1)
    return v.addmm_(v @ basis.t(), basis, alpha=-1), inside  # twice is enough (Kahan)


def _next_block(basis: Tensor, rest: Tensor, scale: float, width: int) -> Tensor:
    """An orthonormal block outside the basis: along ``rest``, or random where the Krylov space has closed."""
    q, r = torch.linalg.qr(rest.t())
    if float(r.diagonal().abs().min()) > 1e-5 * scale:  # scaled up by less than 1e5: orthogonal to the basis to 1e-11
        straight: Tensor = q.t()
        return straight
    for v in (rest, None):
        block = torch.randn(width, basis.shape[1], dtype=basis.dtype, device=basis.device) if v is None else v
        floor = 1e-12 * scale
        for _ in range(2):  # a block that was small before scaling may still overlap the basis
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
    """Draw ±1 probes.

    Args:
        count: number of probes.
        size: P.
        generator: of random numbers.

    Returns:
        (count, size), float64.
    """
    return torch.randint(0, 2, (count, size), generator=generator).double() * 2 - 1


def mean_and_error(values: Sequence[float]) -> tuple[float, float]:
    """Average independent estimates.

    Args:
        values: the estimates.

    Returns:
        Their mean and its standard error; not a number for a single one.
    """
    n = len(values)
    mean = math.fsum(values) / n
    if n < 2:
        return mean, math.nan
    return mean, math.sqrt(math.fsum((v - mean) ** 2 for v in values) / (n - 1) / n)
