"""Ambient Fisher–Rao distance between two networks' predictions on the same inputs."""

from __future__ import annotations

from torch import Tensor

from memspace.task.likelihood import Likelihood

__all__ = ["output_distance", "squared_distances"]


def squared_distances(likelihood: Likelihood, f: Tensor, f2: Tensor, weight: Tensor | None = None) -> Tensor:
    """d(p_i, q_i)² per example, summed over its positions, (n,) nats."""
    d = likelihood.distance(f.double(), f2.double()).square()
    if weight is not None:
        d = d * weight
    return d.flatten(1).sum(1) if d.dim() > 1 else d


def output_distance(likelihood: Likelihood, f: Tensor, f2: Tensor, weight: Tensor | None = None) -> tuple[float, float]:
    """D = √(mean_i d²), nats^½, with its standard error over examples (delta method).

    A lower bound of every path's Fisher–Rao length between the two networks on these inputs.
    """
    squared = squared_distances(likelihood, f, f2, weight)
    d = float(squared.mean().sqrt())
    if len(squared) < 2 or d == 0:
        return d, 0.0
    return d, float(squared.std()) / len(squared) ** 0.5 / (2 * d)
