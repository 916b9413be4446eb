"""Near-duplicates among points: who is closer to its nearest neighbour than neighbours here ever are.

With d_k the distance to the k-th neighbour, t = −log(d_1/d_k) is large for a duplicate. Where points fill a space of m
dimensions evenly, t has an exponential tail of rate m (Levina & Bickel 2005; Facco et al. 2017); here the rate is the
points' own, taken between two quantiles of t, so that p(t) is the chance of such a neighbour without a duplicate.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

__all__ = ["FEWEST", "ORDER", "Neighbours", "chance", "nearest"]

ORDER = 10  # the neighbour that the nearest is measured against
FEWEST = 100  # points, for quantiles of t that mean something
LOW, HIGH = 0.5, 0.9  # between them the tail's rate; more than a tenth of duplicates make it cautious, not eager
_ROUNDING = 5e-4  # of a distance between unit vectors, from cosines in float32
_AT_ONCE = 2**24  # similarities held at a time


@dataclass(frozen=True)
class Neighbours:
    """The nearest points of each query: ``distance`` (q, K) ascending, between unit vectors, and ``index`` (q, K)."""

    distance: Tensor
    index: Tensor


def nearest(queries: Tensor, points: Tensor, k: int, *, same: bool = False) -> Neighbours:
    """The k nearest of ``points`` (n, S) to each of ``queries`` (q, S) by cosine; never n × q numbers at once.

    Args:
        same: the queries are the points: none is its own neighbour.
    """
    unit = torch.nn.functional.normalize(points.float(), dim=1)
    asked = unit if same else torch.nn.functional.normalize(queries.float(), dim=1)
    step = max(1, _AT_ONCE // len(unit))
    cosines, index = [], []
    for start in range(0, len(asked), step):
        part = asked[start : start + step] @ unit.t()
        if same:
            own = torch.arange(len(part), device=part.device)
            part[own, start + own] = -math.inf
        best = part.topk(min(k, len(unit) - same), 1)
        cosines.append(best.values)
        index.append(best.indices)
    distance = (2 - 2 * torch.cat(cosines).double()).clamp_min(_ROUNDING**2).sqrt()
    return Neighbours(distance, torch.cat(index))


def chance(found: Neighbours, clean: Tensor | None = None) -> Tensor:
    """p-values (q, K − 1): the chance of a nearest neighbour this close, relative to the K-th, without duplicates.

    Args:
        clean: (q,) queries that the null is taken from (default: all).
    """
    t = -torch.log(found.distance[:, :-1] / found.distance[:, -1:])
    first = t[:, 0] if clean is None else t[clean, 0]
    low, high = (float(torch.quantile(first, q)) for q in (LOW, HIGH))
    scale = max(high - low, 1e-9) / math.log((1 - LOW) / (1 - HIGH))
    ranks = torch.searchsorted(first.sort().values, t.contiguous())
    body = (1 - ranks.double() / len(first)).clamp_min(1 / len(first))
    tail = (1 - LOW) * torch.exp(-(t - low) / scale)
    return torch.where(t > low, tail, body)
