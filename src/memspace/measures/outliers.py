"""Which real targets are outliers: leave-one-out residuals standardised by leverage, and a two-part noise model.

With d_i = y_i − f_i^(−i) and Σ_i = σ² + J_i M₋ᵢ⁻¹ J_iᵀ its covariance, z_i = Σ_i^(-½) d_i has one scale for all
examples, wherever they stand; a plain residual of an influential example is small because the fit followed it. z is
taken as normal, N(0, s²), with probability 1 − ε and as wide, N(0, (ks)²), with probability ε; (ε, s, k) maximise the
likelihood by expectation–maximisation, and Bayes' rule gives each target's chance of belonging to the wide part (the
normal-scale contamination model of Tukey 1960).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from memspace.task.likelihood import Likelihood

__all__ = ["FEWEST", "OutlierModel", "fit_outliers", "standardised_residuals"]

WIDE = 3.0  # the least ratio of the two scales: less than three standard deviations are no outlier
STEPS = 500
FEWEST = 10  # residuals that two scales are fitted to


def standardised_residuals(
    law: Likelihood, f: Tensor, y: Tensor, loo_f: Tensor, leverage: Tensor, *, own: bool, u: Tensor
) -> Tensor | None:
    """Leave-one-out residuals that are standard normal where the law is right, (n, C); None where it has no numbers.

    Args:
        f, loo_f: (n, C) outputs with and without the example; y: (n, C) targets; leverage: V (n, C, C).
        own: V holds the example's own curvature (see ``measures.leave_one_out.loo_outputs``).
        u: (n, C) places in (0, 1) within the step of a discrete law.
    """
    v = leverage.double()
    if own:  # V₋ᵢ = (I − V H)⁻¹ V
        root = law.fisher_root(f.double())
        eye = torch.eye(v.shape[-1], dtype=torch.float64, device=v.device)
        v = torch.linalg.solve(eye * (1 + 1e-12) - v @ root @ root.mT, v)
    return law.standardised(y, loo_f.double(), (v + v.mT) / 2, u)


@dataclass(frozen=True)
class OutlierModel:
    """The fitted noise of one output.

    Args:
        share: ε; share_error: its standard error from the likelihood's curvature.
        scale: s; ratio: k.
        n: residuals fitted on.
        weight: probability that there is a wide part at all, against one normal (Bayesian information criterion).
    """

    share: float
    share_error: float
    scale: float
    ratio: float
    n: int
    weight: float

    def p_outlier(self, z: Tensor) -> Tensor:
        """Probability of each standardised residual to belong to the wide part, of the shape of z."""
        return self.weight * _posterior(z.double() / self.scale, self.share, self.ratio)


def fit_outliers(z: Tensor) -> OutlierModel:
    """Fit (ε, s, k) to standardised residuals (n,), and weigh them against one normal alone."""
    z = z.detach().double().flatten()
    n = len(z)
    plain = max(float(z.square().mean().sqrt()), 1e-12)
    base = _likelihood(z / plain, 0.0, WIDE) - n * math.log(plain)
    best, height = OutlierModel(0.0, math.nan, plain, WIDE, n, 0.0), -math.inf
    if n < FEWEST:
        return best
    median = max(float(z.abs().median()) / 0.6745, 1e-12)
    for share, ratio in ((0.05, 5.0), (0.2, 4.0), (0.02, 10.0)):
        scale = median
        for _ in range(STEPS):
            p = _posterior(z / scale, share, ratio)
            new = float(p.mean())
            wide = float((p * z.square()).sum() / p.sum().clamp_min(1e-300))
            ratio = max(WIDE, math.sqrt(wide) / scale)
            moved, share = abs(new - share), min(max(new, 1e-9), 0.5)
            scale = max(float(((1 - p + p / ratio**2) * z.square()).mean().sqrt()), 1e-12)
            if moved < 1e-9:
                break
        reached = _likelihood(z / scale, share, ratio) - n * math.log(scale)
        if reached > height:
            u = z / scale
            slope = (_density(u, ratio) - _density(u, 1.0)) / _mixture(u, share, ratio).clamp_min(1e-300)
            information = float(slope.square().sum())
            weight = 1 / (1 + math.exp(min(700.0, math.log(n) - (reached - base))))  # two parameters more
            error = information**-0.5 if information > 0 else math.nan
            best, height = OutlierModel(share, error, scale, ratio, n, weight), reached
    return best


def _density(u: Tensor, width: float) -> Tensor:
    return torch.exp(-0.5 * (u / width).square()) / (width * math.sqrt(2 * math.pi))


def _mixture(u: Tensor, share: float, ratio: float) -> Tensor:
    return (1 - share) * _density(u, 1.0) + share * _density(u, ratio)


def _likelihood(u: Tensor, share: float, ratio: float) -> float:
    return float(torch.log(_mixture(u, share, ratio).clamp_min(1e-300)).sum())


def _posterior(u: Tensor, share: float, ratio: float) -> Tensor:
    if share <= 0:
        return torch.zeros_like(u)
    # As log-odds, since both densities of a far residual round to 0.
    odds = math.log(share / (1 - share) / ratio) + 0.5 * u.square() * (1 - ratio**-2)
    return torch.sigmoid(odds)
