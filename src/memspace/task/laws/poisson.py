"""Counts, also against a law whose rate is itself uncertain."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from scipy.special import ndtri_exp
from scipy.stats import nbinom, poisson
from torch import Tensor

from memspace.arguments import check_fields
from memspace.errors import LabelError
from memspace.task.law import Likelihood, not_negative, wrong_kind
from memspace.task.laws.registry import register_law

__all__ = ["Poisson", "count_residuals"]

SHARP = 1e-8  # variance of the log-rate below which the law is a Poisson law
FAR = 38.0  # standard deviations beyond which a tail rounds to 0


@register_law
@dataclass(frozen=True)
class Poisson(Likelihood):
    """Counts with log-rate f: H = diag(e^f).

    Args:
        name: for people.
    """

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
        """Counts as floats; computed on the host, where SciPy has the law's quantiles."""
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
        """Check that labels are whole numbers, not negative, of the shape of f.

        Raises:
            LabelError: they are not.
        """
        if y.shape != f.shape:
            raise wrong_kind("poisson", y, f, where, f"counts of shape {tuple(f.shape)}")
        bad = ~((y >= 0) & torch.isfinite(y) & (y == y.round()))
        if bool(bad.any()):
            raise LabelError(
                f"{int(bad.sum())} labels are negative or not whole numbers",
                where=where,
                remedy="a Poisson law needs counts 0, 1, 2, ...",
            )


def count_residuals(y: Tensor, f: Tensor, variance: Tensor, u: Tensor) -> Tensor:
    """Compute Φ⁻¹(P(Y < y) + u P(Y = y)), standard normal where y follows the law and u is uniform.

    Y is negative binomial with the mean and variance of counts whose log-rate is normal; Poisson where that variance is
    below 1e-8.

    Args:
        y: counts, any shape.
        f: means of the log-rate.
        variance: of the log-rate.
        u: numbers in (0, 1).

    Returns:
        Residuals, cut at ±38; all of one shape.
    """
    count, rate, v, place = (t.detach().double().cpu().numpy() for t in (y, f.exp(), variance.clamp_min(0), u))
    rate = np.maximum(rate, 1e-300)
    size = 1 / np.expm1(np.clip(v, SHARP, 50))
    mean = rate * np.exp(np.minimum(v, 50) / 2)
    with np.errstate(divide="ignore", invalid="ignore", over="ignore", under="ignore"):
        sharp, spread = poisson(rate), nbinom(size, size / (size + mean))
        below, step, above = (
            np.where(v > SHARP, getattr(spread, name)(at), getattr(sharp, name)(at))
            for name, at in (("cdf", count - 1), ("pmf", count), ("sf", count))
        )
        # The smaller tail keeps its digits.
        low, high = np.log(below + place * step), np.log(above + (1 - place) * step)
        z = np.where(low < high, ndtri_exp(np.minimum(low, 0)), -ndtri_exp(np.minimum(high, 0)))
    return torch.from_numpy(np.clip(np.nan_to_num(z, nan=0.0), -FAR, FAR)).to(f)
