"""The loss that trainings are repeated with: one number per example."""

from __future__ import annotations

from torch import Tensor

from memspace.task.likelihood import Likelihood

__all__ = ["example_losses"]


def example_losses(likelihood: Likelihood, f: Tensor, y: Tensor, *, axes: int = 1) -> Tensor:
    """Compute ℓ_j = −log p(y_j | f_j), of a sequence the mean over its positions that count (not padded).

    Args:
        likelihood: the output law.
        f: outputs (..., C).
        y: their labels.
        axes: number of leading axes that are examples (and networks); any axes after them and before the outputs are
            positions.

    Returns:
        One loss per example, nats, of the shape of the leading ``axes``.
    """
    losses = likelihood.nll(f, y)
    if losses.dim() <= axes:
        return losses
    counted = likelihood.weight(f, y).flatten(axes).sum(-1)
    return losses.flatten(axes).sum(-1) / counted.clamp_min(1)
