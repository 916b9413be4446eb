"""Traces from products alone: every estimator takes a budget of products and returns its standard error.

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
    """Average zᵀ A z over ±1 probes (Hutchinson 1989): unbiased, error ~ ‖A‖_F / √budget.

    Args:
        operator: v ↦ A v on stacks (k, P).
        size: P.
        budget: products with single vectors.
        generator: of random numbers.

    Returns:
        tr A with its standard error.
    """
    z = rademacher(budget, size, generator)
    mean, error = mean_and_error((z * operator(z).double()).sum(1).tolist())
    return Estimate(mean, error, budget, budget - 1)


def hutch_plus_plus(operator: Operator, size: int, budget: int, generator: torch.Generator) -> Estimate:
    """Compute the trace on a sketched range exactly and estimate the rest (Meyer et al. 2021): unbiased.

    One third of the products finds the range, one takes the trace on it, one probes the rest. The error is that of the
    probes on the rest: ~ 1/budget for any positive semi-definite matrix.

    Args:
        operator: v ↦ A v on stacks (k, P).
        size: P.
        budget: products with single vectors.
        generator: of random numbers.

    Returns:
        tr A with its standard error.

    Raises:
        ValueError: a budget below 6 (a standard error needs two probes).
    """
    third = min(budget // 3, size)
    if budget < 6:
        raise ValueError(f"Hutch++ needs at least 6 products, got {budget}")
    q = torch.linalg.qr(operator(rademacher(third, size, generator)).double().t()).Q.t()
    sketched = float((q * operator(q).double()).sum())
    z = rademacher(budget - 2 * third, size, generator)
    z = z - (z @ q.t()) @ q
    rest, error = mean_and_error((z * operator(z).double()).sum(1).tolist())
    return Estimate(sketched + rest, error, budget, len(z) - 1)


def xtrace(operator: Operator, size: int, budget: int, generator: torch.Generator) -> Estimate:
    """Estimate a trace by probes that find the range and, left out of it, test it (Epperly et al. 2024): unbiased.

    Half of the products sketch, half take the trace on the range. The paper's error estimate takes the leave-one-out
    estimates as independent. The part of every probe outside the span of another enters both their estimates, which
    doubles the variance where the range is found. The standard error here is therefore √2 times theirs. It is 0 where
    the sketch spans the range.

    Args:
        operator: v ↦ A v on stacks (k, P).
        size: P.
        budget: products with single vectors.
        generator: of random numbers.

    Returns:
        tr A with its standard error.

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
        return Estimate(float(h.trace()), 0.0, budget)  # the sketch spans the range: exact
    s = torch.linalg.inv(r)  # row i: the direction of the range that only probe i spans
    s = s / s.norm(dim=1, keepdim=True)
    t = omega @ q
    t = t - (t * s).sum(1, keepdim=True) * s
    x, ax = omega - t @ q.t(), y - t @ z
    free = size - m + 1  # x is uniform on a sphere of that many dimensions, so its length is known in advance
    rest = (x * ax).sum(1) * free / x.square().sum(1)
    estimates: Tensor = h.trace() - ((s @ h) * s).sum(1) + rest
    mean, error = mean_and_error(estimates.tolist())
    return Estimate(mean, math.sqrt(2) * error, budget, m - 1)
