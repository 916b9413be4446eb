"""Ambient Fisher–Rao distance between two networks' predictions on the same inputs."""

from __future__ import annotations

from torch import Tensor

from memspace.task.likelihood import Likelihood

__all__ = ["output_distance", "squared_distances"]


def squared_distances(likelihood: Likelihood, f: Tensor, f2: Tensor, weight: Tensor | None = None) -> Tensor:
    """Measure the squared Fisher–Rao distance of two networks' predictions, example by example.

    Args:
        likelihood: the output law.
        f: outputs of one network (n, ..., C).
        f2: outputs of the other, of the same shape.
        weight: (n, ...): 0 for padded positions.

    Returns:
        d(p_i, q_i)², summed over an example's positions, (n,) nats.
    """
    d = likelihood.distance(f.double(), f2.double()).square()
    if weight is not None:
        d = d * weight
    return d.flatten(1).sum(1) if d.dim() > 1 else d


def output_distance(likelihood: Likelihood, f: Tensor, f2: Tensor, weight: Tensor | None = None) -> tuple[float, float]:
    """Measure the ambient distance D = √(mean_i d²) of two networks on these inputs.

    D is a lower bound of every path's Fisher–Rao length between them (Rao 1945).

    Args:
        likelihood: the output law.
        f: outputs of one network (n, ..., C).
        f2: outputs of the other, of the same shape.
        weight: (n, ...): 0 for padded positions.

    Returns:
        D and its standard error over examples (delta method), nats^½.
    """
    squared = squared_distances(likelihood, f, f2, weight)
    d = float(squared.mean().sqrt())
    if len(squared) < 2 or d == 0:
        return d, 0.0
    return d, float(squared.std()) / len(squared) ** 0.5 / (2 * d)
