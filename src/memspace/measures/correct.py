"""Predictions compared with labels, in one place: padded positions count nowhere."""

from __future__ import annotations

from torch import Tensor

from memspace.task.likelihood import Likelihood

__all__ = ["accuracy", "by_example", "correct", "per_prediction"]


def correct(law: Likelihood, f: Tensor, y: Tensor) -> Tensor:
    """Compute how right each position's decision is.

    For several binary labels it is the share of right ones; for a distribution over classes, the share of the
    predicted class.

    Args:
        law: the output law.
        f: (n, ..., C) outputs.
        y: labels.

    Returns:
        float64 of shape ``f.shape[:-1]``, from 0 to 1; 0 at padding.
    """
    weight = law.weight(f, y).double()
    hits = law.hits(f, y).double()
    return (hits.mean(-1) if hits.dim() > weight.dim() else hits) * weight


def by_example(values: Tensor) -> Tensor:
    """Sum over the positions of each example.

    Args:
        values: (n, ...).

    Returns:
        (n,) sums.
    """
    return values.flatten(1).sum(1) if values.dim() > 1 else values


def per_prediction(totals: Tensor, counted: Tensor) -> Tensor:
    """Turn sums over positions into numbers whose mean is Σ totals / Σ counted.

    Their spread gives the ratio's standard error over examples: R + (totals − R·counted)/mean(counted), the
    linearised ratio (Cochran 1977, §6.4). Where all examples have equally many positions, it is each example's mean.

    Args:
        totals: (n,) sums over an example's positions.
        counted: (n,) number of positions that count.

    Returns:
        (n,) float64, in the unit of the totals per position.
    """
    totals, counted = totals.double(), counted.double()
    mean = counted.mean().clamp_min(1e-300)
    ratio = totals.mean() / mean
    return ratio + (totals - ratio * counted) / mean


def accuracy(law: Likelihood, f: Tensor, y: Tensor) -> float:
    """Return the share of right decisions among all positions that count.

    Args:
        law: the output law.
        f: (n, ..., C) outputs.
        y: labels.

    Returns:
        a share in [0, 1].
    """
    return float(correct(law, f, y).sum() / law.weight(f, y).double().sum().clamp_min(1))
