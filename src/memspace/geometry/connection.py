"""Connection and curvature of any metric by automatic differentiation: exact derivatives, no step size."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.func import jacfwd

from memspace.geometry.manifold import Manifold

__all__ = ["christoffel", "riemann", "scalar_curvature", "sectional_curvature"]


def christoffel(manifold: Manifold, x: Tensor) -> Tensor:
    """Compute Γ (k, i, j) = ½ Gᵏˡ(∂_i G_lj + ∂_j G_il − ∂_l G_ij), exact and differentiable in x.

    Args:
        manifold: the metric.
        x: point (d,).

    Returns:
        (d, d, d), the upper index first.
    """
    slope = jacfwd(manifold.metric)(x)  # (i, j, l): ∂_l G_ij
    lowered = 0.5 * (slope.permute(0, 2, 1) + slope - slope.permute(2, 0, 1))  # (l, i, j)
    out: Tensor = torch.linalg.solve(manifold.metric(x), lowered.flatten(1)).reshape(lowered.shape)
    return out


def riemann(manifold: Manifold, x: Tensor) -> Tensor:
    """Compute R (l, k, i, j) = ∂_i Γˡ_jk − ∂_j Γˡ_ik + Γˡ_im Γᵐ_jk − Γˡ_jm Γᵐ_ik: R(∂_i, ∂_j)∂_k = R(l, k, i, j) ∂_l.

    Args:
        manifold: the metric.
        x: point (d,).

    Returns:
        (d, d, d, d), the upper index first; exact.
    """
    gamma = christoffel(manifold, x)
    slope = jacfwd(lambda z: christoffel(manifold, z))(x)  # (l, j, k, i)
    half = slope.permute(0, 2, 3, 1) + torch.einsum("lim,mjk->lkij", gamma, gamma)
    out: Tensor = half - half.transpose(2, 3)
    return out


def sectional_curvature(manifold: Manifold, x: Tensor, u: Tensor, v: Tensor) -> Tensor:
    """Compute g(R(u, v)v, u) over the squared area of u and v.

    Args:
        manifold: the metric.
        x: point (d,).
        u: tangent vector (d,).
        v: another, not parallel to u.

    Returns:
        The curvature of their plane, a scalar; exact.
    """
    metric = manifold.metric(x)
    turned = torch.einsum("lkij,k,i,j->l", riemann(manifold, x), v, u, v)
    area = (u @ metric @ u) * (v @ metric @ v) - (u @ metric @ v) ** 2
    return (u @ metric @ turned) / area


def scalar_curvature(manifold: Manifold, x: Tensor) -> Tensor:
    """Compute Gᵏʲ R(i, k, i, j), which is d(d−1) times the mean sectional curvature.

    Args:
        manifold: the metric.
        x: point (d,).

    Returns:
        A scalar; exact.
    """
    ricci = torch.einsum("ikij->kj", riemann(manifold, x))
    out: Tensor = (torch.linalg.inv(manifold.metric(x)) * ricci).sum()
    return out
