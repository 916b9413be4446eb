"""The curvature of the output law on stacks of output vectors: the H of Jᵀ H J."""

from __future__ import annotations

from torch import Tensor

from memspace.task.likelihood import Likelihood

__all__ = ["output_curvature"]


def output_curvature(likelihood: Likelihood, kind: str, f: Tensor, y: Tensor, u: Tensor) -> Tensor:
    """Multiply output vectors by the law's curvature, H u; ``empirical``: r rᵀ u with r the residual of the label.

    Args:
        likelihood: the output law.
        kind: ``exact`` or ``empirical``.
        f: (B, ..., C) outputs.
        y: (B, ...) labels.
        u: (k, B, ..., C) stack of output vectors.

    Returns:
        (k, B, ..., C).
    """
    if kind == "exact":
        return likelihood.fisher_matvec(f, u) * likelihood.weight(f, y).unsqueeze(-1)
    r = likelihood.residual(f, y)
    inner = (r * u).flatten(2).sum(2)
    return r * inner.reshape(*inner.shape, *([1] * (f.dim() - 1)))
