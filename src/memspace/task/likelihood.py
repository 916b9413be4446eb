"""Output laws p(y | f): each owns its negative log-likelihood, its Fisher information and a root of it.

Shapes: ``f`` is ``(..., C)`` (outputs of the network: logits, means, log-rates), ``y`` is ``(...)`` integer classes
for :class:`Categorical` and ``(..., C)`` floats for the others. Leading axes are examples and, for sequences,
positions; every method is elementwise over them. Unit: nats.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from scipy.stats import poisson
from torch import Tensor

from memspace.errors import LabelError
from memspace.task.merged import merged_root

__all__ = ["Bernoulli", "Categorical", "Gaussian", "Likelihood", "Poisson"]

IGNORE = -100  # the label of a padded position of a sequence, as in torch.nn.functional.cross_entropy


class Likelihood(ABC):
    """p(y | f). ``H`` below is the Fisher information of the law in f, a (C, C) matrix per position."""

    name: str

    @abstractmethod
    def nll(self, f: Tensor, y: Tensor) -> Tensor:
        """-log p(y | f) per position, shape ``f.shape[:-1]``, nats."""

    @abstractmethod
    def residual(self, f: Tensor, y: Tensor) -> Tensor:
        """The gradient of :meth:`nll` in f, shape of f."""

    @abstractmethod
    def fisher_root(self, f: Tensor) -> Tensor:
        """A root S with S Sᵀ = H, shape ``(..., C, K)``; closed form, no eigendecomposition."""

    def merged_root(self, f: Tensor, share: float) -> Tensor:
        """A root of H' ≤ H with tr H' ≥ (1 − share) tr H at every position; by default H' = H."""
        return self.fisher_root(f)

    @abstractmethod
    def fisher_matvec(self, f: Tensor, u: Tensor) -> Tensor:
        """H u for ``u`` of the shape of f."""

    @abstractmethod
    def quantile(self, f: Tensor, u: Tensor) -> Tensor:
        """The label whose cumulative probability first reaches u in (0, 1), of shape :meth:`drawn`.

        At uniform u it is a draw from p(y | f).
        """

    def drawn(self, f: Tensor) -> tuple[int, ...]:
        """How many uniform numbers a draw takes: the shape of u, here that of f."""
        return tuple(f.shape)

    def sample(self, f: Tensor, generator: torch.Generator) -> Tensor:
        """One label per position drawn from p(y | f)."""
        u = torch.rand(self.drawn(f), generator=generator, dtype=torch.float64, device=generator.device)
        return self.quantile(f, u.clamp_min(2.0**-54).to(f.device))

    @abstractmethod
    def kl(self, f: Tensor, f2: Tensor) -> Tensor:
        """KL(p(.|f) ‖ p(.|f2)) per position, nats."""

    @abstractmethod
    def distance(self, f: Tensor, f2: Tensor) -> Tensor:
        """Fisher–Rao distance between p(.|f) and p(.|f2) per position, nats^½ (closed form)."""

    @abstractmethod
    def null_output(self, y: Tensor, outputs: int) -> Tensor:
        """The constant output (C,), C = ``outputs``, of the best predictor that sees no input: the prior over ``y``."""

    @abstractmethod
    def check(self, f: Tensor, y: Tensor, where: str) -> None:
        """Raise LabelError unless ``y`` are valid labels for outputs ``f``."""

    def predict(self, f: Tensor) -> Tensor:
        """The point prediction: the class where there are classes, else the mean."""
        return self.mean(f)

    @abstractmethod
    def mean(self, f: Tensor) -> Tensor:
        """E[y | f] (class probabilities for Categorical), shape of f."""

    @property
    def classifies(self) -> bool:
        """True where :meth:`predict` returns classes, so that accuracy means something."""
        return False

    def weight(self, f: Tensor, y: Tensor) -> Tensor:
        """1 per position that counts, 0 for padded positions (label -100); shape ``f.shape[:-1]``."""
        return torch.ones(f.shape[:-1], dtype=f.dtype, device=f.device)


def _wrong_kind(law: str, y: Tensor, f: Tensor, where: str, want: str) -> LabelError:
    return LabelError(
        f"{law} labels must be {want}, found {str(y.dtype).removeprefix('torch.')} of shape {tuple(y.shape)} "
        f"for outputs of shape {tuple(f.shape)}",
        where=where,
        remedy="change the labels or the output law (likelihood=...)",
    )


@dataclass(frozen=True)
class Categorical(Likelihood):
    """Classes with logits f: H = diag(p) − ppᵀ, S = diag(√p) − p√pᵀ (exact; Karakida et al. 2019)."""

    name: str = "categorical"

    @property
    def classifies(self) -> bool:
        """Predictions are classes."""
        return True

    def weight(self, f: Tensor, y: Tensor) -> Tensor:
        """0 where the label is -100 (padding)."""
        return (y != IGNORE).to(f.dtype)

    def nll(self, f: Tensor, y: Tensor) -> Tensor:
        """Cross-entropy; 0 at padded positions."""
        target = y.clamp_min(0).unsqueeze(-1)
        return -torch.log_softmax(f, -1).gather(-1, target).squeeze(-1) * self.weight(f, y)

    def residual(self, f: Tensor, y: Tensor) -> Tensor:
        """P − onehot(y); 0 at padded positions."""
        onehot = torch.nn.functional.one_hot(y.clamp_min(0), f.shape[-1]).to(f.dtype)
        return (torch.softmax(f, -1) - onehot) * self.weight(f, y).unsqueeze(-1)

    def fisher_root(self, f: Tensor) -> Tensor:
        """(..., C, C); column c is √p_c (e_c − p)."""
        p = torch.softmax(f, -1)
        r = p.sqrt()
        return torch.diag_embed(r) - p.unsqueeze(-1) * r.unsqueeze(-2)

    def merged_root(self, f: Tensor, share: float) -> Tensor:
        """The improbable classes merged into one (see ``memspace.task.merged``)."""
        return merged_root(torch.softmax(f, -1), share)

    def fisher_matvec(self, f: Tensor, u: Tensor) -> Tensor:
        """P ∘ (u − p·u)."""
        p = torch.softmax(f, -1)
        return p * (u - (p * u).sum(-1, keepdim=True))

    def drawn(self, f: Tensor) -> tuple[int, ...]:
        """One number per position."""
        return tuple(f.shape[:-1])

    def quantile(self, f: Tensor, u: Tensor) -> Tensor:
        """Classes, in their own order; never one of probability 0."""
        reached = torch.softmax(f, -1, dtype=u.dtype).cumsum(-1)
        total = reached[..., -1]
        # Rounding may lift u·total to the total, which no class exceeds.
        level = torch.minimum(u * total, torch.nextafter(total, torch.zeros_like(total)))
        return torch.searchsorted(reached, level.unsqueeze(-1), right=True).squeeze(-1)

    def kl(self, f: Tensor, f2: Tensor) -> Tensor:
        """Σ p (log p − log q)."""
        a, b = torch.log_softmax(f, -1), torch.log_softmax(f2, -1)
        return (a.exp() * (a - b)).sum(-1).clamp_min(0)

    def distance(self, f: Tensor, f2: Tensor) -> Tensor:
        """2 arccos Σ √(p q), written as 4 arcsin(½‖√p − √q‖), which stays accurate for near laws."""
        # √p as exp(½ log p): where p rounds to 0, the derivative of √p would be infinite.
        r, s = torch.exp(torch.log_softmax(f, -1) / 2), torch.exp(torch.log_softmax(f2, -1) / 2)
        return 4 * torch.asin(((r - s).norm(dim=-1) / 2).clamp(max=1.0))

    def null_output(self, y: Tensor, outputs: int) -> Tensor:
        """Log class frequencies; a class never seen gets half a count."""
        y = y[y != IGNORE]
        counts = torch.bincount(y.reshape(-1), minlength=outputs).double().clamp_min(0.5)
        return torch.log(counts / counts.sum())

    def check(self, f: Tensor, y: Tensor, where: str) -> None:
        """Integer classes in [0, C) (or -100 for padding)."""
        if y.dtype.is_floating_point or y.dtype.is_complex or y.dtype == torch.bool or y.shape != f.shape[:-1]:
            raise _wrong_kind("categorical", y, f, where, f"integers of shape {tuple(f.shape[:-1])}")
        bad = ((y < 0) & (y != IGNORE)) | (y >= f.shape[-1])
        if bool(bad.any()):
            raise LabelError(
                f"{int(bad.sum())} labels lie outside 0..{f.shape[-1] - 1} (smallest {int(y.min())}, "
                f"largest {int(y.max())})",
                where=where,
                remedy=f"the model has {f.shape[-1]} outputs: recode the labels or use a model with more classes",
            )

    def predict(self, f: Tensor) -> Tensor:
        """The most probable class."""
        return f.argmax(-1)

    def mean(self, f: Tensor) -> Tensor:
        """Class probabilities."""
        return torch.softmax(f, -1)


@dataclass(frozen=True)
class Bernoulli(Likelihood):
    """C independent binary labels with logits f: H = diag(p(1−p))."""

    name: str = "bernoulli"

    @property
    def classifies(self) -> bool:
        """Predictions are 0/1."""
        return True

    def nll(self, f: Tensor, y: Tensor) -> Tensor:
        """Summed over the C labels."""
        return torch.nn.functional.binary_cross_entropy_with_logits(f, y.to(f.dtype), reduction="none").sum(-1)

    def residual(self, f: Tensor, y: Tensor) -> Tensor:
        """P − y."""
        return torch.sigmoid(f) - y.to(f.dtype)

    def _variance(self, f: Tensor) -> Tensor:
        return torch.sigmoid(f) * torch.sigmoid(-f)

    def fisher_root(self, f: Tensor) -> Tensor:
        """diag(√(p(1−p)))."""
        return torch.diag_embed(self._variance(f).sqrt())

    def fisher_matvec(self, f: Tensor, u: Tensor) -> Tensor:
        """p(1−p) ∘ u."""
        return self._variance(f) * u

    def quantile(self, f: Tensor, u: Tensor) -> Tensor:
        """0/1 floats."""
        return (u > torch.sigmoid(-f)).to(f.dtype)

    def kl(self, f: Tensor, f2: Tensor) -> Tensor:
        """Summed over the C labels."""
        p, ls = torch.sigmoid(f), torch.nn.functional.logsigmoid
        return (p * (ls(f) - ls(f2)) + (1 - p) * (ls(-f) - ls(-f2))).sum(-1).clamp_min(0)

    def distance(self, f: Tensor, f2: Tensor) -> Tensor:
        """√Σ (2 asin√p − 2 asin√q)²; asin√σ(f) = atan(e^{f/2})."""
        d: Tensor = torch.linalg.vector_norm(2 * (torch.atan(torch.exp(f / 2)) - torch.atan(torch.exp(f2 / 2))), dim=-1)
        return d

    def null_output(self, y: Tensor, outputs: int) -> Tensor:
        """Logit of the mean label."""
        p = y.reshape(-1, y.shape[-1]).double().mean(0).clamp(1e-6, 1 - 1e-6)
        return torch.log(p / (1 - p))

    def check(self, f: Tensor, y: Tensor, where: str) -> None:
        """Numbers in [0, 1] of the shape of f."""
        if y.shape != f.shape:
            raise _wrong_kind("bernoulli", y, f, where, f"numbers in [0, 1] of shape {tuple(f.shape)}")
        bad = ~((y >= 0) & (y <= 1))
        if bool(bad.any()):
            raise LabelError(
                f"{int(bad.sum())} labels lie outside [0, 1]",
                where=where,
                remedy="recode the labels to 0 and 1",
            )

    def predict(self, f: Tensor) -> Tensor:
        """1 where p > ½."""
        return (f > 0).to(f.dtype)

    def mean(self, f: Tensor) -> Tensor:
        """P."""
        return torch.sigmoid(f)


@dataclass(frozen=True)
class Gaussian(Likelihood):
    """Real targets with mean f and fixed noise ``sigma``: H = I/σ²."""

    sigma: float = 1.0
    name: str = "gaussian"

    def __post_init__(self) -> None:
        if not (self.sigma > 0 and math.isfinite(self.sigma)):
            raise ValueError(f"Gaussian needs a positive sigma, got {self.sigma}")

    def nll(self, f: Tensor, y: Tensor) -> Tensor:
        """½‖f−y‖²/σ² + C log(σ√2π)."""
        constant = f.shape[-1] * (math.log(self.sigma) + 0.5 * math.log(2 * math.pi))
        return 0.5 * ((f - y.to(f.dtype)) ** 2).sum(-1) / self.sigma**2 + constant

    def residual(self, f: Tensor, y: Tensor) -> Tensor:
        """(f − y)/σ²."""
        return (f - y.to(f.dtype)) / self.sigma**2

    def fisher_root(self, f: Tensor) -> Tensor:
        """I/σ."""
        return torch.diag_embed(torch.full_like(f, 1 / self.sigma))

    def fisher_matvec(self, f: Tensor, u: Tensor) -> Tensor:
        """u/σ²."""
        return u / self.sigma**2

    def quantile(self, f: Tensor, u: Tensor) -> Tensor:
        """Mean plus noise."""
        noise: Tensor = torch.special.ndtri(u)
        return f + self.sigma * noise.to(f.dtype)

    def kl(self, f: Tensor, f2: Tensor) -> Tensor:
        """½‖f−f2‖²/σ²."""
        return 0.5 * ((f - f2) ** 2).sum(-1) / self.sigma**2

    def distance(self, f: Tensor, f2: Tensor) -> Tensor:
        """‖f − f2‖/σ."""
        d: Tensor = torch.linalg.vector_norm(f - f2, dim=-1) / self.sigma
        return d

    def null_output(self, y: Tensor, outputs: int) -> Tensor:
        """The mean target."""
        return y.reshape(-1, y.shape[-1]).double().mean(0)

    def check(self, f: Tensor, y: Tensor, where: str) -> None:
        """Floats of the shape of f."""
        if y.shape != f.shape or not y.dtype.is_floating_point:
            raise _wrong_kind("gaussian", y, f, where, f"floats of shape {tuple(f.shape)}")
        bad = ~torch.isfinite(y)
        if bool(bad.any()):
            raise LabelError(
                f"{int(bad.sum())} labels are NaN or infinite",
                where=where,
                remedy="drop or repair those examples",
            )

    def mean(self, f: Tensor) -> Tensor:
        """F itself."""
        return f


@dataclass(frozen=True)
class Poisson(Likelihood):
    """Counts with log-rate f: H = diag(e^f)."""

    name: str = "poisson"

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
        return (f.exp() * (f - f2) - f.exp() + f2.exp()).sum(-1).clamp_min(0)

    def distance(self, f: Tensor, f2: Tensor) -> Tensor:
        """√Σ (2√λ − 2√λ2)²."""
        d: Tensor = torch.linalg.vector_norm(2 * ((f / 2).exp() - (f2 / 2).exp()), dim=-1)
        return d

    def null_output(self, y: Tensor, outputs: int) -> Tensor:
        """Log of the mean count."""
        return torch.log(y.reshape(-1, y.shape[-1]).double().mean(0).clamp_min(1e-6))

    def check(self, f: Tensor, y: Tensor, where: str) -> None:
        """Non-negative whole numbers of the shape of f."""
        if y.shape != f.shape:
            raise _wrong_kind("poisson", y, f, where, f"counts of shape {tuple(f.shape)}")
        bad = ~((y >= 0) & torch.isfinite(y) & (y == y.round()))
        if bool(bad.any()):
            raise LabelError(
                f"{int(bad.sum())} labels are negative or not whole numbers",
                where=where,
                remedy="a Poisson law needs counts 0, 1, 2, ...",
            )

    def mean(self, f: Tensor) -> Tensor:
        """e^f."""
        return f.exp()
