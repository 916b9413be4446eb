"""Traces from products alone. Each estimator takes a budget of products and gives its standard error.

The budget counts products with single vectors, so the three compare at equal cost.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from memspace.metric.krylov import Operator, mean_and_error, rademacher
from memspace.metric.metric import Estimate

__all__ = ["hutch_plus_plus", "hutchinson", "xtrace"]


def hutchinson(operator: Operator, size: int, budget: int, generator: torch.Generator) -> Estimate:
    """Mean of zᵀ A z over ±1 probes (Hutchinson 1989): unbiased, error ~ ‖A‖_F / √budget."""
    z = rademacher(budget, size, generator)
    mean, error = mean_and_error((z * operator(z).double()).sum(1).tolist())
    return Estimate(mean, error, budget, budget - 1)


def hutch_plus_plus(operator: Operator, size: int, budget: int, generator: torch.Generator) -> Estimate:
    """Exact on a sketched range, Hutchinson on the rest (Meyer et al. 2021): unbiased.

    A third of the products each find the range, take the trace on it, and probe what is left. The error is that of
    the probes on the rest: ~ 1/budget for any positive semi-definite matrix.

    Raises:
        ValueError: a budget below 6 (a standard error needs two probes).
    """
    third = min(budget // 3, size)
    if budget < 6:
        raise ValueError(f"Hutch++ needs at least 6 products, got {budget}")
    q = torch.linalg.qr(operator(rademacher(third, size, generator)).double().t()).Q.t()
    held = float((q * operator(q).double()).sum())
    z = rademacher(budget - 2 * third, size, generator)
    z = z - (z @ q.t()) @ q
    rest, error = mean_and_error((z * operator(z).double()).sum(1).tolist())
    return Estimate(held + rest, error, budget, len(z) - 1)


def xtrace(operator: Operator, size: int, budget: int, generator: torch.Generator) -> Estimate:
    """Every probe both finds the range and, left out of it, tests it (XTrace; Epperly et al. 2024): unbiased.

    Half of the products sketch, half take the trace on the range. The standard error is √2 times that of the
    leave-one-out estimates' mean taken as independent (their error estimate): what two probes leave of each other
    enters both their estimates, so that where the range is found the variance is twice as large. It is 0 where the
    sketch spans the range.

    Raises:
        ValueError: a budget below 4.
    """
    if budget < 4:
        raise ValueError(f"XTrace needs at least 4 products, got {budget}")
    m = min(budget // 2, size)
    omega = torch.randn(m, size, generator=generator, dtype=torch.float64)
    omega *= math.sqrt(size) / omega.norm(dim=1, keepdim=True)  # uniform on the sphere
    y = operator(omega).double()
    q, r = torch.linalg.qr(y.t())  # (P, m), (m, m)
    z = operator(q.t().contiguous()).double()
    h = z @ q
    diagonal = r.diagonal().abs()
    if m == size or float(diagonal.min()) <= 1e-13 * float(diagonal.max()):
        return Estimate(float(h.trace()), 0.0, budget)  # the sketch spans the range: nothing is left to probe
    s = torch.linalg.inv(r)  # row i: the direction of the range that probe i alone brought
    s = s / s.norm(dim=1, keepdim=True)
    t = omega @ q
    t = t - (t * s).sum(1, keepdim=True) * s
    x, ax = omega - t @ q.t(), y - t @ z
    free = size - m + 1  # x is uniform on a sphere of that many dimensions, so its length is known in advance
    rest = (x * ax).sum(1) * free / x.square().sum(1)
    each: Tensor = h.trace() - ((s @ h) * s).sum(1) + rest
    mean, error = mean_and_error(each.tolist())
    return Estimate(mean, math.sqrt(2) * error, budget, m - 1)
