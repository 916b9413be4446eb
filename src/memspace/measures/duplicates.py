"""Near-duplicates among points: pairs closer than nearest neighbours of these data are.

With d_k the distance to the k-th neighbour, t = −log(d_1/d_k) is large for a duplicate. Where points fill a space of m
dimensions evenly, t has an exponential tail of rate m (Levina & Bickel 2005; Facco et al. 2017); here the rate is
estimated between two quantiles of t, so that p(t) is the chance of such a neighbour without a duplicate.
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
_AT_ONCE = 2**24  # similarities in memory at a time


@dataclass(frozen=True)
class Neighbours:
    """The nearest points of each query, between unit vectors.

    Args:
        distance: (q, K), ascending.
        index: (q, K) positions of the points.
    """

    distance: Tensor
    index: Tensor


def nearest(queries: Tensor, points: Tensor, k: int, *, same: bool = False) -> Neighbours:
    """Find the nearest points to each query by cosine, in parts: the (q, n) table is never formed whole.

    Args:
        queries: (q, S).
        points: (n, S).
        k: neighbours of each query.
        same: whether the queries are the points; then no point is its own neighbour.

    Returns:
        the neighbours, fewer than k where there are fewer points.
    """
    unit = torch.nn.functional.normalize(points.float(), dim=1)
    asked = unit if same else torch.nn.functional.normalize(queries.float(), dim=1)
    step = max(1, _AT_ONCE // len(unit))
    cosines, index = [], []
    for start in range(0, len(asked), step):
        part = asked[start : start + step] @ unit.t()
        if same:
            row = torch.arange(len(part), device=part.device)
            part[row, start + row] = -math.inf
        best = part.topk(min(k, len(unit) - same), 1)
        cosines.append(best.values)
        index.append(best.indices)
    distance = (2 - 2 * torch.cat(cosines).double()).clamp_min(_ROUNDING**2).sqrt()
    return Neighbours(distance, torch.cat(index))


def chance(found: Neighbours, clean: Tensor | None = None) -> Tensor:
    """Compute p-values: the chance of a neighbour this close, relative to the K-th, if there were no duplicates.

    Args:
        found: K neighbours of each query.
        clean: (q,) queries that the null is estimated from; None: all.

    Returns:
        (q, K − 1) probabilities.
    """
    t = -torch.log(found.distance[:, :-1] / found.distance[:, -1:])
    first = t[:, 0] if clean is None else t[clean, 0]
    low, high = (float(torch.quantile(first, q)) for q in (LOW, HIGH))
    scale = max(high - low, 1e-9) / math.log((1 - LOW) / (1 - HIGH))
    ranks = torch.searchsorted(first.sort().values, t.contiguous())
    body = (1 - ranks.double() / len(first)).clamp_min(1 / len(first))
    tail = (1 - LOW) * torch.exp(-(t - low) / scale)
    return torch.where(t > low, tail, body)
