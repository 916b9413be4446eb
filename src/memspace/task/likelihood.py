"""Output laws p(y | f): each owns its negative log-likelihood, its Fisher information and a root of it.

Shapes: ``f`` is ``(..., C)`` (outputs of the network: logits, means, log-rates), ``y`` is ``(...)`` integer classes or
``(..., C)`` distributions over them for :class:`Categorical`, and ``(..., C)`` floats for the others. Leading axes are
examples and, for sequences, positions; every method is elementwise over them. Unit: nats.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from scipy.stats import poisson
from torch import Tensor

from memspace.arguments import check_fields
from memspace.errors import LabelError, SettingsError, TaskError
from memspace.task.counts import count_residuals
from memspace.task.gaussian import Gaussian
from memspace.task.law import IGNORE, Likelihood, not_negative, wrong_kind
from memspace.task.merged import merged_root

__all__ = ["Bernoulli", "Categorical", "Gaussian", "Likelihood", "Poisson", "refuse_one_class"]

SMALL, TERMS = 1e-2, 9  # arcsin²(√u) by its series below this u: what is left out is under 1e-17 of it


@dataclass(frozen=True)
class Categorical(Likelihood):
    """Classes with logits f: H = diag(p) − ppᵀ, S = diag(√p) − p√pᵀ (exact; Karakida et al. 2019).

    A label is a class, or a distribution over the classes of the shape of f, against which the expected negative
    log-likelihood is taken, as ``torch.nn.functional.cross_entropy`` does.

    Args:
        class_axis: the axis of the model's outputs that runs over classes, 1 as torch's losses have it or -1; None:
            settled by the labels' shape.
    """

    name: str = "categorical"
    class_axis: int | None = None

    def __post_init__(self) -> None:
        check_fields(self, of=Categorical)
        if self.class_axis not in (None, 1, -1):
            raise SettingsError(
                f"class_axis is 1, -1 or None, got {self.class_axis!r}", where="output law", remedy="give one of these"
            )

    @property
    def classifies(self) -> bool:
        """Predictions are classes."""
        return True

    def weight(self, f: Tensor, y: Tensor) -> Tensor:
        """0 where the label is -100 (padding)."""
        return torch.ones_like(f[..., 0]) if _soft(f, y) else (y != IGNORE).to(f.dtype)

    def nll(self, f: Tensor, y: Tensor) -> Tensor:
        """Cross-entropy; 0 at padded positions."""
        log_p = torch.log_softmax(f, -1)
        if _soft(f, y):  # a class of share 0 adds nothing, also where its logit is −∞
            return -torch.where(y > 0, y * log_p, torch.zeros_like(log_p)).sum(-1)
        target = y.clamp_min(0).unsqueeze(-1)
        return -log_p.gather(-1, target).squeeze(-1) * self.weight(f, y)

    def residual(self, f: Tensor, y: Tensor) -> Tensor:
        """P − onehot(y), or p − y for a distribution; 0 at padded positions.

        The entry of the label is minus the sum of the others: 1 − p of a sure prediction is rounding.
        """
        p = torch.softmax(f, -1)
        if _soft(f, y):
            likely = y.argmax(-1)
            return _summing_to_nought(p - y.to(f.dtype), likely)
        return _summing_to_nought(p, y.clamp_min(0)) * self.weight(f, y).unsqueeze(-1)

    def hits(self, f: Tensor, y: Tensor) -> Tensor:
        """1 where the likeliest class is the label, or its share where the label is a distribution."""
        if _soft(f, y):
            return y.to(f.dtype).gather(-1, self.predict(f).unsqueeze(-1)).squeeze(-1)
        return (self.predict(f) == y).to(f.dtype)

    def fisher_root(self, f: Tensor) -> Tensor:
        """(..., C, C); column c is √p_c (e_c − p)."""
        p = torch.softmax(f, -1)
        likely = torch.nn.functional.one_hot(p.argmax(-1), p.shape[-1]).to(p.dtype)
        others = torch.where(likely > 0, (p * (1 - likely)).sum(-1, keepdim=True), 1 - p)
        r, off = p.sqrt(), 1 - torch.eye(p.shape[-1], dtype=p.dtype, device=p.device)
        return torch.diag_embed(r * others) - p.unsqueeze(-1) * r.unsqueeze(-2) * off

    def merged_root(self, f: Tensor, share: float) -> Tensor:
        """The improbable classes merged into one (see ``memspace.task.merged``)."""
        return merged_root(torch.softmax(f, -1), share)

    def fisher_matvec(self, f: Tensor, u: Tensor) -> Tensor:
        """P ∘ (u − p·u), with u counted from the likeliest class: a shift of u changes nothing but the rounding."""
        p = torch.softmax(f, -1)
        u = u - u.gather(-1, p.argmax(-1, keepdim=True).expand(*u.shape[:-1], 1))
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
        return not_negative((a.exp() * (a - b)).sum(-1))

    def distance(self, f: Tensor, f2: Tensor) -> Tensor:
        """2 arccos Σ √(p q), written as 4 arcsin(½‖√p − √q‖), which stays accurate for near laws."""
        return 4 * torch.asin(self._chord(f, f2).norm(dim=-1).clamp(max=1.0))

    def squared_distance(self, f: Tensor, f2: Tensor) -> Tensor:
        """16 arcsin²(½‖√p − √q‖)."""
        return 16 * _arcsine_squared(self._chord(f, f2).square().sum(-1).clamp(max=1.0))

    @staticmethod
    def _chord(f: Tensor, f2: Tensor) -> Tensor:
        # √p as exp(½ log p): where p rounds to 0, the derivative of √p would be infinite.
        return (torch.exp(torch.log_softmax(f, -1) / 2) - torch.exp(torch.log_softmax(f2, -1) / 2)) / 2

    def null_output(self, y: Tensor, outputs: int) -> Tensor:
        """Log class frequencies; a class never seen gets half a count."""
        if y.is_floating_point():
            counts = y.reshape(-1, outputs).double().sum(0)
        else:
            counts = torch.bincount(y[y != IGNORE].reshape(-1), minlength=outputs).double()
        counts = counts.clamp_min(0.5)
        return torch.log(counts / counts.sum())

    def decisions(self, f: Tensor, y: Tensor) -> tuple[Tensor, Tensor] | None:
        """One choice among C classes, where each example has one label that is a class."""
        if f.dim() != 2 or y.dim() != 1:
            return None
        return torch.log_softmax(f, -1).unsqueeze(1), y.unsqueeze(1)

    def check(self, f: Tensor, y: Tensor, where: str) -> None:
        """Integer classes in [0, C) (or -100 for padding), or distributions over them."""
        if f.shape[-1] < 2:
            raise LabelError(
                "a categorical law needs at least two outputs and the model has one",
                where=where,
                remedy="use likelihood=Bernoulli() for one logit, Gaussian() or Poisson() for a number",
            )
        if _soft(f, y):
            self._check_distribution(y, where)
            return
        if y.is_floating_point() and y.shape == f.shape[:-1] and bool(y.isnan().any()):
            raise LabelError(
                f"{int(y.isnan().sum())} labels are missing (NaN)",
                where=where,
                remedy="leave these examples out, or give them the label -100",
            )
        if y.dtype.is_floating_point or y.dtype.is_complex or y.dtype == torch.bool or y.shape != f.shape[:-1]:
            raise wrong_kind("categorical", y, f, where, f"integers of shape {tuple(f.shape[:-1])}")
        bad = ((y < 0) & (y != IGNORE)) | (y >= f.shape[-1])
        if bool(bad.any()):
            remedy = f"the model has {f.shape[-1]} outputs: recode the labels or use a model with more classes"
            other = torch.unique(y[bad])
            if len(other) == 1 and not bool(bad.all()):
                remedy = f"if {int(other)} means no label, put -100 in its place; {remedy}"
            raise LabelError(
                f"{int(bad.sum())} labels lie outside 0..{f.shape[-1] - 1} (smallest {int(y.min())}, "
                f"largest {int(y.max())})",
                where=where,
                remedy=remedy,
            )

    @staticmethod
    def _check_distribution(y: Tensor, where: str) -> None:
        bad = ((y < 0) | ~torch.isfinite(y)).any(-1) | (~((y.double().sum(-1) - 1).abs() < 1e-3))
        if bool(bad.any()):
            raise LabelError(
                f"{int(bad.sum())} labels of shape {tuple(y.shape)}, that of the outputs, are no distributions over "
                "the classes",
                where=where,
                remedy="give classes as integers, or probabilities that are not negative and sum to one",
            )

    def predict(self, f: Tensor) -> Tensor:
        """The most probable class."""
        return f.argmax(-1)

    def mean(self, f: Tensor) -> Tensor:
        """Class probabilities."""
        return torch.softmax(f, -1)


def _soft(f: Tensor, y: Tensor) -> bool:
    """Labels that are distributions over the classes."""
    return y.is_floating_point() and y.shape[-1:] == f.shape[-1:] and y.dim() == f.dim()


def _arcsine_squared(u: Tensor) -> Tensor:
    """arcsin²(√u) for u in [0, 1], smooth at 0 where √u is not: Σ_k (4u)^k / (2k² (2k choose k)) for small u."""
    small = u < SMALL
    series, power = torch.zeros_like(u), torch.ones_like(u)
    near = torch.where(small, u, torch.zeros_like(u))
    for k in range(1, TERMS + 1):
        power = power * near
        series = series + 4**k / (2 * k**2 * math.comb(2 * k, k)) * power
    far = torch.asin(torch.where(small, torch.full_like(u, 0.5), u).sqrt()).square()
    return torch.where(small, series, far)


@dataclass(frozen=True)
class Bernoulli(Likelihood):
    """C independent binary labels with logits f: H = diag(p(1−p))."""

    name: str = "bernoulli"

    def __post_init__(self) -> None:
        check_fields(self, of=Bernoulli)

    @property
    def classifies(self) -> bool:
        """Predictions are 0/1."""
        return True

    def nll(self, f: Tensor, y: Tensor) -> Tensor:
        """Summed over the C labels."""
        return torch.nn.functional.binary_cross_entropy_with_logits(f, y.to(f.dtype), reduction="none").sum(-1)

    def residual(self, f: Tensor, y: Tensor) -> Tensor:
        """P − y, as (1 − y)p − y(1 − p): of a sure prediction p − 1 is rounding."""
        y = y.to(f.dtype)
        return (1 - y) * torch.sigmoid(f) - y * torch.sigmoid(-f)

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
        return not_negative((p * (ls(f) - ls(f2)) + (1 - p) * (ls(-f) - ls(-f2))).sum(-1))

    def distance(self, f: Tensor, f2: Tensor) -> Tensor:
        """√Σ (2 asin√p − 2 asin√q)²; asin√σ(f) = atan(e^{f/2})."""
        d: Tensor = torch.linalg.vector_norm(self._angles(f) - self._angles(f2), dim=-1)
        return d

    def squared_distance(self, f: Tensor, f2: Tensor) -> Tensor:
        """Σ (2 asin√p − 2 asin√q)²."""
        return (self._angles(f) - self._angles(f2)).square().sum(-1)

    @staticmethod
    def _angles(f: Tensor) -> Tensor:
        # 2 atan(e^{f/2}) − π/2, without a power that overflows: its derivative would be NaN.
        return 2 * torch.atan(torch.tanh(f / 4))

    def null_output(self, y: Tensor, outputs: int) -> Tensor:
        """Logit of the mean label."""
        p = y.reshape(-1, y.shape[-1]).double().mean(0).clamp(1e-6, 1 - 1e-6)
        return torch.log(p / (1 - p))

    def decisions(self, f: Tensor, y: Tensor) -> tuple[Tensor, Tensor] | None:
        """C choices of 0 or 1, where labels are no probabilities between them."""
        if f.dim() != 2 or bool(((y != 0) & (y != 1)).any()):
            return None
        sure = torch.nn.functional.logsigmoid
        return torch.stack([sure(-f), sure(f)], -1), y.long()

    def check(self, f: Tensor, y: Tensor, where: str) -> None:
        """Numbers in [0, 1] of the shape of f."""
        if y.shape != f.shape:
            raise wrong_kind("bernoulli", y, f, where, f"numbers in [0, 1] of shape {tuple(f.shape)}")
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
class Poisson(Likelihood):
    """Counts with log-rate f: H = diag(e^f)."""

    name: str = "poisson"

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

    def distance(self, f: Tensor, f2: Tensor) -> Tensor:
        """√Σ (2√λ − 2√λ2)²."""
        d: Tensor = torch.linalg.vector_norm(2 * ((f / 2).exp() - (f2 / 2).exp()), dim=-1)
        return d

    def squared_distance(self, f: Tensor, f2: Tensor) -> Tensor:
        """Σ (2√λ − 2√λ2)²."""
        return 4 * ((f / 2).exp() - (f2 / 2).exp()).square().sum(-1)

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

    def mean(self, f: Tensor) -> Tensor:
        """e^f."""
        return f.exp()


def _summing_to_nought(r: Tensor, label: Tensor) -> Tensor:
    """R with the label's entry such that all entries sum to 0."""
    label = label.unsqueeze(-1)
    rest = r.scatter(-1, label, 0.0)
    return rest.scatter(-1, label, -rest.sum(-1, keepdim=True))


def refuse_one_class(law: Likelihood, f: Tensor, where: str) -> None:
    """Raise where a law of classes is given for a single output: its Fisher information would be zero without a word.

    Raises:
        TaskError: naming the laws that one output may have.
    """
    if isinstance(law, Categorical) and f.shape[-1] == 1:
        raise TaskError(
            "the model has one output, and the law Categorical needs one for every class",
            where=where,
            remedy="give likelihood=Bernoulli() for yes or no, Gaussian() for numbers, Poisson() for counts",
        )
