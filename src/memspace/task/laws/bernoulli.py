"""Independent binary labels."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from memspace.arguments import check_fields
from memspace.errors import LabelError
from memspace.task.law import Likelihood, not_negative, wrong_kind
from memspace.task.laws.definition import Boundary
from memspace.task.laws.registry import register_law

__all__ = ["Bernoulli"]


class _AtEvenOdds(Boundary):
    """A gap ±f_k for each label."""

    stretch = 1.0
    largest_information = 0.25

    def gaps(self, f: Tensor, decision: Tensor) -> Tensor:
        """f_k where the label is 1, −f_k where it is 0."""
        return f * (2 * decision - 1)

    def gap_rows(self, jacobian: Tensor, decision: Tensor) -> Tensor:
        """±∇f_k."""
        return jacobian * (2 * decision - 1).unsqueeze(-1)

    def distance(self, f: Tensor) -> Tensor:
        """The least 2|arcsin √p_k − π/4| over the labels."""
        return (2 * (torch.atan(torch.exp(f.double().abs() / 2)) - math.pi / 4)).amin(-1)


@register_law
@dataclass(frozen=True)
class Bernoulli(Likelihood):
    """C independent binary labels with logits f: H = diag(p(1−p)).

    Args:
        name: for people.
    """

    name: str = "bernoulli"

    classifies = True
    independent = True
    gain_free = True
    link = "sigmoid"
    boundary = _AtEvenOdds()

    def __post_init__(self) -> None:
        check_fields(self, of=Bernoulli)

    def nll(self, f: Tensor, y: Tensor) -> Tensor:
        """−log p(y | f), summed over the C labels."""
        return torch.nn.functional.binary_cross_entropy_with_logits(f, y.to(f.dtype), reduction="none").sum(-1)

    def residual(self, f: Tensor, y: Tensor) -> Tensor:
        """p − y, as (1 − y)p − y(1 − p): of a sure prediction p − 1 is rounding."""
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
        """Labels 0 or 1 as floats."""
        return (u > torch.sigmoid(-f)).to(f.dtype)

    def kl(self, f: Tensor, f2: Tensor) -> Tensor:
        """KL divergence, summed over the C labels."""
        p, ls = torch.sigmoid(f), torch.nn.functional.logsigmoid
        return not_negative((p * (ls(f) - ls(f2)) + (1 - p) * (ls(-f) - ls(-f2))).sum(-1))

    def coordinates(self, f: Tensor) -> Tensor:
        """2 arcsin √p, less π/2: 2 atan(tanh(f/4)), without a power that overflows, whose derivative would be NaN."""
        return 2 * torch.atan(torch.tanh(f / 4))

    def mean(self, f: Tensor) -> Tensor:
        """The probabilities p of 1."""
        return torch.sigmoid(f)

    def predict(self, f: Tensor) -> Tensor:
        """1 where p > ½."""
        return (f > 0).to(f.dtype)

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
        """Check that labels are numbers in [0, 1] of the shape of f.

        Raises:
            LabelError: they are not.
        """
        if y.shape != f.shape:
            raise wrong_kind("bernoulli", y, f, where, f"numbers in [0, 1] of shape {tuple(f.shape)}")
        bad = ~((y >= 0) & (y <= 1))
        if bool(bad.any()):
            raise LabelError(
                f"{int(bad.sum())} labels lie outside [0, 1]",
                where=where,
                remedy="recode the labels to 0 and 1",
            )
