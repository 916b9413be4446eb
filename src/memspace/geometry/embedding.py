"""Output laws as points of a space in which lengths can be differentiated, and steps along paths of outputs."""

from __future__ import annotations

from torch import Tensor

from memspace.errors import TaskError
from memspace.task.likelihood import Likelihood

__all__ = ["embed", "squared_steps"]


def embed(law: Likelihood, f: Tensor) -> Tensor:
    """Map outputs to coordinates φ with ‖dφ‖² = dfᵀ H df: 2√p, f/σ, 2·arcsin√p or 2√λ.

    Args:
        law: the output law.
        f: outputs (..., C).

    Returns:
        (..., M), nats^½.

    Raises:
        TaskError: an output law without known coordinates.
    """
    phi = law.coordinates(f)
    if phi is None:
        raise TaskError(
            f"the output law {law.name} has no embedding, so geodesics cannot be followed from it",
            where="likelihood",
            remedy="give it coordinates(f), or use Categorical, Bernoulli, Gaussian or Poisson",
        )
    return phi


def squared_steps(law: Likelihood, f: Tensor, weight: Tensor | None = None) -> Tensor:
    """Measure the squared Fisher–Rao steps along a path of outputs, example by example.

    Args:
        law: the output law.
        f: outputs (S, n, ..., C) along the path.
        weight: (n, ...): 0 for padded positions.

    Returns:
        (S−1, n) nats, summed over positions; as exact as the law's ``squared_distance``.
    """
    phi = law.coordinates(f)
    d = law.squared_distance(f[:-1], f[1:]) if phi is None else law.squared_arc((phi[1:] - phi[:-1]).square().sum(-1))
    if weight is not None:
        d = d * weight
    return d.flatten(2).sum(2) if d.dim() > 2 else d
