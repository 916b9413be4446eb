"""Predictions compared with labels, in one place: padded positions count nowhere."""

from __future__ import annotations

from torch import Tensor

from memspace.task.likelihood import Likelihood

__all__ = ["accuracy", "by_example", "correct", "per_prediction"]


def correct(law: Likelihood, f: Tensor, y: Tensor) -> Tensor:
    """How right each position's decision is, ``f.shape[:-1]``, float64: 0 to 1, and 0 where padded.

    Of several binary labels it is the share that is right; of a distribution over classes, the share of the predicted
    one.
    """
    weight = law.weight(f, y).double()
    hits = law.hits(f, y).double()
    return (hits.mean(-1) if hits.dim() > weight.dim() else hits) * weight


def by_example(values: Tensor) -> Tensor:
    """Sums over positions, (n,)."""
    return values.flatten(1).sum(1) if values.dim() > 1 else values


def per_prediction(totals: Tensor, counted: Tensor) -> Tensor:
    """(n,) numbers whose mean is Σ totals / Σ counted and whose spread gives its standard error over examples.

    The linearised ratio R + (totals − R·counted)/mean(counted) (Cochran 1977, §6.4); where all examples have as many
    positions it is each one's own mean.

    Args:
        totals, counted: (n,) sums over an example's positions, and how many there are.
    """
    totals, counted = totals.double(), counted.double()
    mean = counted.mean().clamp_min(1e-300)
    ratio = totals.mean() / mean
    return ratio + (totals - ratio * counted) / mean


def accuracy(law: Likelihood, f: Tensor, y: Tensor) -> float:
    """Share of right decisions among all positions that count."""
    return float(correct(law, f, y).sum() / law.weight(f, y).double().sum().clamp_min(1))
