"""Krylov methods on a symmetric positive semi-definite operator given by products: CG and Lanczos."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

__all__ = ["Solution", "Tridiagonal", "conjugate_gradients", "lanczos", "rademacher"]

Operator = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Solution:
    """``x`` with the relative residual reached and the products used."""

    x: Tensor
    residual: float
    iterations: int
    converged: bool


def conjugate_gradients(operator: Operator, b: Tensor, *, tolerance: float = 1e-6, limit: int = 1000) -> Solution:
    """Solve A x = b for one vector (Hestenes & Stiefel 1952), in float64."""
    b = b.double()
    x = torch.zeros_like(b)
    r, p = b.clone(), b.clone()
    rho, target = r @ r, tolerance * b.norm()
    step = 0
    while step < limit and rho.sqrt() > target:
        ap = operator(p)
        alpha = rho / (p @ ap)
        x, r = x + alpha * p, r - alpha * ap
        fresh = r @ r
        p, rho = r + (fresh / rho) * p, fresh
        step += 1
    scale = float(b.norm())
    residual = float(rho.sqrt()) / scale if scale > 0 else 0.0
    return Solution(x, residual, step, residual <= tolerance)


@dataclass(frozen=True)
class Tridiagonal:
    """Lanczos: A ≈ V T Vᵀ on the Krylov space of a start vector; ``nodes``/``weights`` its Gauss quadrature."""

    nodes: Tensor
    weights: Tensor
    vectors: Tensor
    basis: Tensor


def lanczos(operator: Operator, start: Tensor, steps: int) -> Tridiagonal:
    """``steps`` of Lanczos with full reorthogonalisation, float64; stops early on an invariant subspace."""
    q = start.double() / start.double().norm()
    basis, alphas, betas = [q], [], []
    for k in range(steps):
        w = operator(basis[-1])
        alphas.append(float(basis[-1] @ w))
        stacked = torch.stack(basis)
        for _ in range(2):  # twice is enough (Kahan)
            w = w - stacked.t() @ (stacked @ w)
        beta = float(w.norm())
        if k + 1 == steps or beta < 1e-12 * max(1.0, abs(alphas[0])):
            break
        betas.append(beta)
        basis.append(w / beta)
    t = torch.diag(torch.tensor(alphas, dtype=torch.float64))
    off = torch.tensor(betas[: len(alphas) - 1], dtype=torch.float64)
    t = t + torch.diag(off, 1) + torch.diag(off, -1)
    nodes, vectors = torch.linalg.eigh(t)
    return Tridiagonal(nodes.clamp_min(0), vectors[0].square(), vectors, torch.stack(basis))


def rademacher(count: int, size: int, generator: torch.Generator) -> Tensor:
    """±1 probes, (count, size), float64."""
    return torch.randint(0, 2, (count, size), generator=generator).double() * 2 - 1


def mean_and_error(values: list[float]) -> tuple[float, float]:
    """Mean of independent estimates and its standard error."""
    n = len(values)
    mean = math.fsum(values) / n
    if n < 2:
        return mean, math.nan
    return mean, math.sqrt(math.fsum((v - mean) ** 2 for v in values) / (n - 1) / n)
