"""Memorisation and influence by retraining on random subsets (Feldman & Zhang 2020)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from memspace.errors import DataError
from memspace.experiments.truth import Truth

__all__ = ["MeanDifference", "influences", "mean_error", "memorisation"]


@dataclass(frozen=True)
class MeanDifference:
    """A difference of two means with its standard error; NaN where an example was always in, or always out.

    Args:
        value: (N,) or (N, Q).
        error: of the same shape.
        inside: number of networks that trained with the example, (N,).
        outside: number of networks that trained without it, (N,).
    """

    value: Tensor
    error: Tensor
    inside: Tensor
    outside: Tensor


def memorisation(truth: Truth, *, outcome: str = "correct") -> MeanDifference:
    """Estimate mem_i = P(h(x_i) = y_i | i in S) − P(h(x_i) = y_i | i not in S)  (Feldman & Zhang 2020, eq. 1).

    Args:
        truth: whose queries are all training examples, in order (further queries may follow).
        outcome: ``correct``; with others the difference of their means, for the loss with the opposite sign.

    Returns:
        (N,), with standard errors.

    Raises:
        DataError: the queries are not these.
    """
    n = truth.design.kept.shape[1]
    q = truth.queries
    if q.split[:n] != ("train",) * n or not torch.equal(q.index[:n], torch.arange(n)):
        raise DataError(
            "memorisation needs every training example among the queries, first and in order",
            where=truth.design.name,
            remedy="measure queries_of(task, train=torch.arange(N), test=...)",
        )
    masks, y, seeds = _by_subset(truth, outcome)
    y = y[:, :n]
    binary = outcome == "correct"
    inside, outside = _moments(masks, y, binary, seeds), _moments(1 - masks, y, binary, seeds)
    return _difference(masks, seeds, inside, outside)


def influences(truth: Truth, *, outcome: str = "correct") -> MeanDifference:
    """Estimate infl(i → q) = P(h(x_q) = y_q | i in S) − P(h(x_q) = y_q | i not in S)  (Feldman & Zhang 2020, eq. 2).

    Positive: example i supports query q.

    Args:
        truth: of random subsets.
        outcome: ``correct``; with others the difference of their means, for the loss with the opposite sign.

    Returns:
        (N, Q), with standard errors.
    """
    masks, y, seeds = _by_subset(truth, outcome)
    binary = outcome == "correct"

    def moments(mask: Tensor) -> tuple[Tensor, Tensor]:
        count = mask.sum(0)[:, None]
        mean = mask.T @ y / count
        return mean, _variance(mean, mask.T @ y.square() / count, count, binary, seeds)

    return _difference(masks, seeds, moments(masks), moments(1 - masks))


def _by_subset(truth: Truth, outcome: str) -> tuple[Tensor, Tensor, int]:
    """Masks (K, N), supporting outcomes averaged over a subset's seeds (K, Q), and how many seeds.

    Networks of one subset share what they were trained on: a subset is one draw, however many seeds it has.
    """
    return truth.design.kept.double(), truth.support(outcome).mean(1), truth.design.seeds.shape[1]


def _moments(mask: Tensor, y: Tensor, binary: bool, seeds: int) -> tuple[Tensor, Tensor]:
    """Mean of y over the subsets in the mask, and its variance, by column; both (K, N)."""
    count = mask.sum(0)
    mean = (mask * y).sum(0) / count
    return mean, _variance(mean, (mask * y.square()).sum(0) / count, count, binary, seeds)


def _variance(mean: Tensor, square: Tensor, count: Tensor, binary: bool, seeds: int) -> Tensor:
    """Of a mean of ``count`` subsets' values: their sample variance over the count (NaN from one value).

    Shares have at least p(1−p)/(count · seeds), with half a count added to each side, so that a few equal values are
    not taken for certainty; with one seed a subset that is all there is.
    """
    sample = (square - mean.square()).clamp_min(0) / (count - 1)
    if not binary:
        return torch.where(count > 1, sample, torch.nan)
    p = (mean * count + 0.5) / (count + 1)
    least = p * (1 - p) / (count * seeds)
    if seeds > 1:
        least = torch.where(count > 1, torch.maximum(least, sample), p * (1 - p) / count)
    return torch.where(count > 0, least, torch.nan)


def _difference(
    kept: Tensor, seeds: int, inside: tuple[Tensor, Tensor], outside: tuple[Tensor, Tensor]
) -> MeanDifference:
    error = (inside[1] + outside[1]).sqrt()
    return MeanDifference(inside[0] - outside[0], error, seeds * kept.sum(0).long(), seeds * (1 - kept).sum(0).long())


def mean_error(truth: Truth, outcome: str, known: Tensor) -> float:
    """Estimate the standard error of the mean memorisation of some examples, by leaving out one subset at a time.

    All examples are read off the same networks, so the errors of their scores do not average out.

    Args:
        truth: of random subsets.
        outcome: as for :func:`memorisation`.
        known: mask of the examples, (N,).

    Returns:
        In the outcome's unit.
    """
    k = len(truth.design.kept)
    means = []
    for left_out in range(k):
        value = memorisation(truth.of_subsets(torch.arange(k) != left_out), outcome=outcome).value[known]
        means.append(value[torch.isfinite(value)].mean())
    parts = torch.stack(means)
    return float(((k - 1) / k * (parts - parts.mean()).square().sum()).sqrt())
