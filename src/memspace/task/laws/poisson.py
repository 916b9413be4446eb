"""Counts."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from scipy.stats import poisson
from torch import Tensor

from memspace.arguments import check_fields
from memspace.errors import LabelError
from memspace.task.counts import count_residuals
from memspace.task.law import Likelihood, not_negative, wrong_kind
from memspace.task.laws.registry import register_law

__all__ = ["Poisson"]


@register_law
@dataclass(frozen=True)
class Poisson(Likelihood):
    """Counts with log-rate f: H = diag(e^f)."""

    name: str = "poisson"

    independent = True
    link = "rate"

    def __post_init__(self) -> None:
        check_fields(self, of=Poisson)

    def nll(self, f: Tensor, y: Tensor) -> Tensor:
        """e^f − y f + log y!."""
        y = y.to(f.dtype)
        return (f.exp() - y * f + torch.lgamma(y + 1)).sum(-1)

    def residual(self, f: Tensor, y: Tensor) -> Tensor:
        """e^f − y."""
        return f.exp() - y.to(f.dtype)

    def fisher_root(self, f: Tensor) -> Tensor:
        """diag(e^{f/2})."""
        return torch.diag_embed((f / 2).exp())

    def fisher_matvec(self, f: Tensor, u: Tensor) -> Tensor:
        """e^f ∘ u."""
        return f.exp() * u

    def quantile(self, f: Tensor, u: Tensor) -> Tensor:
        """Counts as floats; worked out on the host, where SciPy has the law's quantiles."""
        counts = poisson.ppf(u.double().cpu().numpy(), f.double().exp().cpu().numpy())
        return torch.as_tensor(counts).to(f)

    def kl(self, f: Tensor, f2: Tensor) -> Tensor:
        """Σ λ (f − f2) − λ + λ2."""
        return not_negative((f.exp() * (f - f2) - f.exp() + f2.exp()).sum(-1))

    def coordinates(self, f: Tensor) -> Tensor:
        """2√λ."""
        return 2 * (f / 2).exp()

    def mean(self, f: Tensor) -> Tensor:
        """The rates e^f."""
        return f.exp()

    def standardised(self, y: Tensor, f: Tensor, spread: Tensor, u: Tensor) -> Tensor:
        """Randomised quantile residuals Φ⁻¹(P(Y < y) + u P(Y = y)) (Dunn & Smyth 1996).

        Y is the negative binomial law with the mean and variance of counts whose log-rate has a normal error.
        """
        return count_residuals(y, f, spread.diagonal(dim1=-2, dim2=-1), u)

    def null_output(self, y: Tensor, outputs: int) -> Tensor:
        """Log of the mean count."""
        return torch.log(y.reshape(-1, y.shape[-1]).double().mean(0).clamp_min(1e-6))

    def check(self, f: Tensor, y: Tensor, where: str) -> None:
        """Non-negative whole numbers of the shape of f."""
        if y.shape != f.shape:
            raise wrong_kind("poisson", y, f, where, f"counts of shape {tuple(f.shape)}")
        bad = ~((y >= 0) & torch.isfinite(y) & (y == y.round()))
        if bool(bad.any()):
            raise LabelError(
                f"{int(bad.sum())} labels are negative or not whole numbers",
                where=where,
                remedy="a Poisson law needs counts 0, 1, 2, ...",
            )
