"""Output laws as points of flat space, so that lengths can be differentiated: Fisher–Rao distance from the chord.

A map φ with ‖dφ‖² = dfᵀ H df for every output law; for class probabilities it ends on the sphere of radius 2, so the
distance is the arc over the chord.
"""

from __future__ import annotations

import torch
from torch import Tensor

from memspace.errors import TaskError
from memspace.task.likelihood import Bernoulli, Categorical, Gaussian, Likelihood, Poisson

__all__ = ["embed", "squared_arcs", "squared_steps"]


def embed(law: Likelihood, f: Tensor) -> Tensor:
    """φ(f), shape of f: 2√p, f/σ, 2·arcsin√p or 2√λ.

    Raises:
        TaskError: an output law without a known embedding.
    """
    if isinstance(law, Categorical):
        return 2 * torch.exp(torch.log_softmax(f, -1) / 2)  # the root itself would have no derivative at 0
    if isinstance(law, Gaussian):
        return f / law.scale(f)
    if isinstance(law, Bernoulli):
        return 2 * torch.atan(torch.exp(f / 2))
    if isinstance(law, Poisson):
        return 2 * torch.exp(f / 2)
    raise TaskError(
        f"the output law {law.name} has no embedding, so paths through it cannot be optimised",
        where="likelihood",
        remedy="use Categorical, Bernoulli, Gaussian or Poisson",
    )


def squared_arcs(law: Likelihood, chord: Tensor) -> Tensor:
    """d² from squared chords ‖φ − φ'‖², smooth down to 0."""
    if not isinstance(law, Categorical):
        return chord
    q = (chord / 16).clamp(max=1 - 1e-9)  # sin²(d/4)
    small = q < 1e-3
    away = torch.where(small, torch.full_like(q, 0.5), q)
    near = q * (1 + q * (1 / 3 + q * (8 / 45 + q * 4 / 35)))  # arcsin² in powers of q
    return 16 * torch.where(small, near, torch.asin(away.sqrt()).square())


def squared_steps(law: Likelihood, phi: Tensor, weight: Tensor | None = None) -> Tensor:
    """Squared Fisher–Rao step per example along a path of embedded outputs (S, n, ..., C): (S−1, n) nats.

    ``weight`` (n, ...): 0 for padded positions.
    """
    d = squared_arcs(law, (phi[1:] - phi[:-1]).square().sum(-1))
    if weight is not None:
        d = d * weight
    return d.flatten(2).sum(2) if d.dim() > 2 else d
