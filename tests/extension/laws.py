"""Three output laws as a user would write them, in one file outside the package."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from scipy.stats import nbinom

from memspace import LawOfClasses, Likelihood, register_law


@register_law
@dataclass(frozen=True)
class NegativeBinomial(Likelihood):
    """Counts with mean e^f and variance e^f + e^2f/r."""

    size: float = 2.0
    name: str = "negative binomial"

    independent = True
    link = "rate"

    def _log_odds(self, f):
        return f - torch.log(f.exp() + self.size)  # log of the chance of one more

    def nll(self, f, y):
        y, r = y.to(f), torch.tensor(self.size).to(f)
        counted = torch.lgamma(y + r) - torch.lgamma(r) - torch.lgamma(y + 1)
        return -(counted + y * self._log_odds(f) + r * torch.log(r / (f.exp() + r))).sum(-1)

    def fisher_root(self, f):
        return torch.diag_embed((f.exp() * self.size / (f.exp() + self.size)).sqrt())

    def quantile(self, f, u):
        chance = self.size / (self.size + f.double().exp())
        return torch.as_tensor(nbinom.ppf(u.double().numpy(), self.size, chance.numpy())).to(f)

    def kl(self, f, f2):
        rest = torch.log((f2.exp() + self.size) / (f.exp() + self.size))
        return (f.exp() * (self._log_odds(f) - self._log_odds(f2)) + self.size * rest).sum(-1).clamp_min(0)

    def mean(self, f):
        return f.exp()


@register_law
@dataclass(frozen=True)
class Laplace(Likelihood):
    """Real targets with median f and noise of density e^(−|y − f|/b)/2b."""

    width: float = 0.5
    name: str = "laplace"

    continuous = True
    independent = True

    def nll(self, f, y):
        return ((f - y.to(f)).abs() / self.width + torch.log(torch.tensor(2 * self.width).to(f))).sum(-1)

    def fisher_root(self, f):
        return torch.eye(f.shape[-1], dtype=f.dtype).expand(*f.shape, -1) / self.width

    def quantile(self, f, u):
        away = torch.where(u < 0.5, torch.log(2 * u), -torch.log(2 * (1 - u)))
        return f + self.width * away.to(f)

    def kl(self, f, f2):
        apart = (f - f2).abs() / self.width
        return (apart + torch.expm1(-apart)).sum(-1)

    def mean(self, f):
        return f


@register_law
@dataclass(frozen=True)
class OrdinalClasses(LawOfClasses):
    """Grades 0..K−1 by where one output plus logistic noise lies among thresholds."""

    thresholds: tuple[float, ...] = (-1.0, 0.5, 2.0)
    name: str = "ordinal"

    def classes(self, outputs):
        return len(self.thresholds) + 1

    def log_probabilities(self, f):
        edges = torch.tensor([-torch.inf, *self.thresholds, torch.inf], dtype=f.dtype)
        below = torch.sigmoid(edges - f[..., :1])
        return torch.log(below.diff(dim=-1))
