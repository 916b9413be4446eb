"""Which real targets are outliers: leave-one-out residuals standardised by leverage, and a noise model with tails.

With d_i = y_i − f_i^(−i) and Σ_i = σ² + J_i M₋ᵢ⁻¹ J_iᵀ its covariance, z_i = Σ_i^(-½) d_i has one scale for all
examples, wherever they stand; a plain residual of an influential example is small because the fit followed it.

The noise of a right target has scale s: normal, or Student's t with 10, 5 or 3 degrees of freedom. A target is an
outlier with probability ε, and then as wide as N(0, (ks)²), k ≥ 3 (the contaminated normal of Tukey 1960), or far out:
of density ∝ u² N(u; 0, (ks)²), which none in the middle has. Each of these noises is fitted with and without outliers
by expectation–maximisation, and all are weighed by the Bayesian information criterion: heavy tails explain large
residuals as outliers do, and only what no tail explains counts.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from memspace.intervals import around
from memspace.task.likelihood import Likelihood

__all__ = ["FEWEST", "Noise", "OutlierModel", "fit_outliers", "standardised_residuals"]

WIDE = 3.0  # the least ratio of the two scales: less than three standard deviations are no outlier
FAR = 2.0  # the same of outliers far out, most of which lie at √2 k
STEPS = 500
FREEDOM = (math.inf, 10.0, 5.0, 3.0)
STARTS = ((0.05, 5.0), (0.2, 4.0), (0.02, 10.0))  # (ε, k) that the fit begins at
SURE = 0.9  # probability of outliers, or of none, from which they are distinguished from tails
HEAVY = 5.0  # degrees of freedom below which tails are so heavy that outliers beyond them have no clear meaning
SKEWED = 3.0  # standard errors of the skewness of normal noise
UNLIKELY = 0.02  # probability below which a noise is left out of the interval
FEWEST = 10  # residuals that two scales are fitted to


def standardised_residuals(
    law: Likelihood, f: Tensor, y: Tensor, loo_f: Tensor, leverage: Tensor, *, own: bool, u: Tensor
) -> Tensor | None:
    """Compute leave-one-out residuals that are standard normal where the law is right.

    Args:
        law: the output law.
        f: (n, C) outputs.
        y: (n, C) targets.
        loo_f: (n, C) outputs without the example.
        leverage: (n, C, C) V.
        own: V contains the example's own curvature (see ``measures.leave_one_out.loo_outputs``).
        u: (..., n, C) positions in (0, 1) within the step of a discrete law.

    Returns:
        residuals of u's shape; None where the law has none.
    """
    v = leverage.double()
    if own:  # V₋ᵢ = (I − V H)⁻¹ V
        root = law.fisher_root(f.double())
        eye = torch.eye(v.shape[-1], dtype=torch.float64, device=v.device)
        v = torch.linalg.solve(eye * (1 + 1e-12) - v @ root @ root.mT, v)
    return law.standardised(y, loo_f.double(), (v + v.mT) / 2, u)


@dataclass(frozen=True)
class Noise:
    """One fitted noise.

    Args:
        share: ε, of outliers; 0 where it has none.
        share_error: standard error of the share, from the likelihood's curvature.
        scale: s.
        ratio: k.
        freedom: degrees of freedom of the tails; infinite for a normal noise.
        far: whether outliers are far out, and none in the middle.
        weight: probability among all noises.
    """

    share: float
    share_error: float
    scale: float
    ratio: float
    freedom: float
    far: bool
    weight: float

    def p_outlier(self, z: Tensor) -> Tensor:
        """Compute the probability of each standardised residual to be an outlier under this noise.

        Args:
            z: residuals.

        Returns:
            probabilities of the shape of z.
        """
        return _posterior(z.double() / self.scale, self)


@dataclass(frozen=True)
class OutlierModel:
    """The noise of one output.

    Args:
        noises: all that were fitted.
        doubt: why outliers are not distinguished from the noise of right targets; empty where they are.
    """

    noises: tuple[Noise, ...]
    doubt: str = ""

    @property
    def weight(self) -> float:
        """Probability that there are outliers at all, and not tails alone."""
        return math.fsum(v.weight for v in self.noises if v.share > 0)

    @property
    def distinguished(self) -> bool:
        """Whether outliers are distinguished from the noise of right targets."""
        return not self.doubt

    @property
    def scale(self) -> float:
        """s, mean over the noises."""
        return math.fsum(v.weight * v.scale for v in self.noises)

    def p_outlier(self, z: Tensor) -> Tensor:
        """Compute the probability of each standardised residual to be an outlier, the mean over all noises.

        Args:
            z: residuals.

        Returns:
            probabilities of the shape of z, float64.
        """
        total = torch.zeros_like(z, dtype=torch.float64)
        for noise in self.noises:
            if noise.share > 0 and noise.weight > 0:
                total += noise.weight * noise.p_outlier(z)
        return total

    def ends(self) -> tuple[float, float]:
        """Return the 95% interval of the share of outliers, over every noise that the residuals do not exclude.

        Returns:
            lower and upper end.
        """
        low, high = math.inf, 0.0
        for noise in self.noises:
            if noise.weight < UNLIKELY:
                continue
            ends = (0.0, 0.0)
            if noise.share > 0:
                error = noise.share_error if math.isfinite(noise.share_error) else 1.0
                ends = around(noise.share, error, lower=0.0, upper=1.0)
            low, high = min(low, ends[0]), max(high, ends[1])
        return (low, high) if low <= high else (0.0, 1.0)


def fit_outliers(z: Tensor) -> OutlierModel:
    """Fit every noise to standardised residuals, and weigh them by their evidence.

    Args:
        z: (n,) residuals.

    Returns:
        the noises with their probabilities.
    """
    z = z.detach().double().flatten()
    n = len(z)
    plain = max(float(z.square().mean().sqrt()), 1e-12)
    if n < FEWEST:
        return OutlierModel((Noise(0.0, math.nan, plain, WIDE, math.inf, False, 1.0),))
    scale = max(float(z.abs().median()) / 0.6745, 1e-12)
    fitted = []
    for freedom in FREEDOM:
        tails = 0 if math.isinf(freedom) else 1
        clean = Noise(0.0, math.nan, scale, WIDE, freedom, False, 1.0)
        noise, height = _fitted(z, clean)
        fitted.append((noise, height - (1 + tails) * math.log(n) / 2))
        for far in (False, True):
            starts = [replace(clean, share=share, ratio=ratio, far=far) for share, ratio in STARTS]
            noise, height = max((_fitted(z, start) for start in starts), key=lambda v: v[1])
            # Two shapes of outliers share one prior with none.
            fitted.append((noise, height - (3 + tails) * math.log(n) / 2 - math.log(2)))
    best = max(evidence for _, evidence in fitted)
    weight = [math.exp(max(evidence - best, -700.0)) for _, evidence in fitted]
    total = math.fsum(weight)
    noises = tuple(replace(noise, weight=w / total) for (noise, _), w in zip(fitted, weight, strict=True))
    made = OutlierModel(noises)
    return replace(made, doubt=_doubt(z, made))


def _doubt(z: Tensor, model: OutlierModel) -> str:
    """Why outliers are not distinguished: tails explain them, tails are heavy next to them, or the noise is skewed."""
    heavy = math.fsum(v.weight for v in model.noises if v.freedom <= HEAVY)
    if 1 - SURE < model.weight < SURE or (model.weight >= SURE and heavy > 1 - SURE):
        return "outliers cannot be separated from noise with heavy tails"
    right = 1 - model.p_outlier(z)
    count = float(right.sum())
    mean = float((right * z).sum()) / count
    spread = math.sqrt(max(float((right * (z - mean).square()).sum()) / count, 1e-300))
    skewness = float((right * ((z - mean) / spread) ** 3).sum()) / count
    if abs(skewness) > SKEWED * math.sqrt(6 / count):
        return "outliers cannot be separated from skewed noise"
    return ""


def _fitted(z: Tensor, start: Noise) -> tuple[Noise, float]:
    """The noise of greatest likelihood from one start, and its log-likelihood."""
    noise, clean = start, start.share == 0
    for _ in range(STEPS):
        u = z / noise.scale
        p = _posterior(u, noise)
        heavy = torch.ones_like(u)
        if not math.isinf(noise.freedom):
            heavy = (noise.freedom + 1) / (noise.freedom + u.square())
        scale = max(float(((1 - p) * heavy * z.square()).sum() / (1 - p).sum().clamp_min(1e-300)) ** 0.5, 1e-12)
        share, ratio = 0.0, noise.ratio
        if not clean:
            share = min(max(float(p.mean()), 1e-9), 0.5)
            wide = float((p * z.square()).sum() / p.sum().clamp_min(1e-300))
            # The mean of u² is k² of a wide normal and 3 k² far out.
            ratio = max(FAR, math.sqrt(wide / 3) / scale) if noise.far else max(WIDE, math.sqrt(wide) / scale)
        moved = max(abs(math.log(scale / noise.scale)), abs(share - noise.share))
        noise = replace(noise, share=share, scale=scale, ratio=ratio)
        if moved < 1e-7:
            break
    u = z / noise.scale
    mixture = _log_mixture(u, noise)
    if not clean:
        slope = torch.exp(_log_outlier(u, noise) - mixture) - torch.exp(_log_core(u, noise.freedom) - mixture)
        information = float(slope.square().sum())
        noise = replace(noise, share_error=information**-0.5 if information > 0 else math.nan)
    return noise, float(mixture.sum()) - len(z) * math.log(noise.scale)


def _log_normal(u: Tensor) -> Tensor:
    return -0.5 * u.square() - 0.5 * math.log(2 * math.pi)


def _log_core(u: Tensor, freedom: float) -> Tensor:
    if math.isinf(freedom):
        return _log_normal(u)
    constant = math.lgamma((freedom + 1) / 2) - math.lgamma(freedom / 2) - 0.5 * math.log(freedom * math.pi)
    return constant - (freedom + 1) / 2 * torch.log1p(u.square() / freedom)


def _log_outlier(u: Tensor, noise: Noise) -> Tensor:
    wide = u / noise.ratio
    density = _log_normal(wide) - math.log(noise.ratio)
    return density + wide.square().clamp_min(1e-300).log() if noise.far else density


def _log_mixture(u: Tensor, noise: Noise) -> Tensor:
    core = _log_core(u, noise.freedom)
    if noise.share <= 0:
        return core
    return torch.logaddexp(core + math.log1p(-noise.share), _log_outlier(u, noise) + math.log(noise.share))


def _posterior(u: Tensor, noise: Noise) -> Tensor:
    if noise.share <= 0:
        return torch.zeros_like(u)
    # As log-odds, since both densities of a far residual round to 0.
    odds = _log_outlier(u, noise) - _log_core(u, noise.freedom) + math.log(noise.share / (1 - noise.share))
    # A tail overtakes a normal very far out: no outlier is less of one for lying further off.
    order = u.abs().flatten().argsort()
    rising = odds.flatten()[order].cummax(0).values
    return torch.sigmoid(torch.empty_like(rising).scatter_(0, order, rising).reshape(u.shape))
