"""Memorisation and influence by retraining on random subsets (Feldman & Zhang 2020)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from memspace.errors import DataError
from memspace.experiments.truth import Truth

__all__ = ["Difference", "influences", "memorisation"]


@dataclass(frozen=True)
class Difference:
    """A difference of two means with its standard error; NaN where an example was always in, or always out.

    Args:
        value, error: (N,) or (N, Q).
        inside, outside: (N,) networks that trained with and without the example.
    """

    value: Tensor
    error: Tensor
    inside: Tensor
    outside: Tensor


def memorisation(truth: Truth, *, outcome: str = "correct") -> Difference:
    """mem_i = P(h(x_i) = y_i | i in S) − P(h(x_i) = y_i | i not in S)  (Feldman & Zhang 2020, eq. 1), (N,).

    Args:
        truth: whose queries are all training examples, in order (further queries may follow).

    Raises:
        DataError: they are not.
    """
    n = truth.design.kept.shape[1]
    q = truth.queries
    if q.split[:n] != ("train",) * n or not torch.equal(q.index[:n], torch.arange(n)):
        raise DataError(
            "memorisation needs every training example among the queries, first and in order",
            where=truth.design.name,
            remedy="measure queries_of(task, train=torch.arange(N), test=...)",
        )
    kept, y = _flat(truth, outcome)
    y = y[:, :n]
    binary = outcome == "correct"
    m_in, v_in = _moments(kept, y, binary)
    m_out, v_out = _moments(1 - kept, y, binary)
    return _difference(kept, (m_in, v_in), (m_out, v_out))


def influences(truth: Truth, *, outcome: str = "correct") -> Difference:
    """infl(i → q) = P(h(x_q) = y_q | i in S) − P(h(x_q) = y_q | i not in S)  (eq. 2), (N, Q).

    Positive: example i supports query q. With other outcomes: the difference of their means, for the loss with the
    opposite sign.
    """
    kept, y = _flat(truth, outcome)
    binary = outcome == "correct"

    def moments(mask: Tensor) -> tuple[Tensor, Tensor]:
        count = mask.sum(0)[:, None]
        mean = mask.T @ y / count
        return mean, _variance(mean, mask.T @ y.square() / count, count, binary)

    return _difference(kept, moments(kept), moments(1 - kept))


def _flat(truth: Truth, outcome: str) -> tuple[Tensor, Tensor]:
    """Masks (T, N) and supporting outcomes (T, Q) of all T networks."""
    s = truth.design.seeds.shape[1]
    return truth.design.kept.double().repeat_interleave(s, 0), truth.support(outcome).flatten(0, 1)


def _moments(mask: Tensor, y: Tensor, binary: bool) -> tuple[Tensor, Tensor]:
    """Mean of y over the networks in the mask, and its variance, by column; both (T, N)."""
    count = mask.sum(0)
    mean = (mask * y).sum(0) / count
    return mean, _variance(mean, (mask * y.square()).sum(0) / count, count, binary)


def _variance(mean: Tensor, square: Tensor, count: Tensor, binary: bool) -> Tensor:
    """Of a mean of ``count`` values: p(1−p)/count of shares, with half a count added to each side, so that a few equal
    values are not taken for certainty; else the sample variance over the count (NaN from one value).
    """
    if binary:
        p = (mean * count + 0.5) / (count + 1)
        return torch.where(count > 0, p * (1 - p) / count, torch.nan)
    spread = (square - mean.square()).clamp_min(0) * count / (count - 1)
    return torch.where(count > 1, spread / count, torch.nan)


def _difference(kept: Tensor, inside: tuple[Tensor, Tensor], outside: tuple[Tensor, Tensor]) -> Difference:
    error = (inside[1] + outside[1]).sqrt()
    return Difference(inside[0] - outside[0], error, kept.sum(0).long(), (1 - kept).sum(0).long())
