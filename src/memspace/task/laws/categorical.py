"""Classes with a logit each."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from memspace.arguments import check_fields
from memspace.errors import LabelError, SettingsError
from memspace.task.law import IGNORE
from memspace.task.laws.classes import LawOfClasses, soft
from memspace.task.laws.definition import Boundary
from memspace.task.laws.registry import register_law
from memspace.task.merged import kept_classes, merged_root

__all__ = ["Categorical"]


class _BetweenClasses(Boundary):
    """Gaps f_y − f_k to every other class k."""

    stretch = math.sqrt(2)
    largest_information = 0.5

    def gaps(self, f: Tensor, decision: Tensor) -> Tensor:
        """f_y − f_k, infinite for y itself."""
        chosen = decision.unsqueeze(-1)
        return (f.gather(-1, chosen) - f).scatter(-1, chosen, math.inf)

    def gap_rows(self, jacobian: Tensor, decision: Tensor) -> Tensor:
        """∇f_y − ∇f_k, zero for y itself."""
        chosen = decision.reshape(-1, 1, 1).expand(-1, 1, jacobian.shape[-1])
        return jacobian.gather(1, chosen) - jacobian

    def distance(self, f: Tensor) -> Tensor:
        """2 arcsin((√p_y − √p_k)/√2) to the runner-up k, at most π/2.

        √p lies on a sphere of radius 2, the boundary in the hyperplanes √p_y = √p_k.
        """
        root = torch.softmax(f.double(), -1).sqrt().topk(2, -1).values
        return 2 * torch.asin((root[..., 0] - root[..., 1]) / math.sqrt(2))


@register_law
@dataclass(frozen=True)
class Categorical(LawOfClasses):
    """Classes with logits f: H = diag(p) − ppᵀ, S = diag(√p) − p√pᵀ (exact; Karakida et al. 2019).

    A label is a class, or a distribution over the classes of the shape of f, against which the expected negative
    log-likelihood is taken, as ``torch.nn.functional.cross_entropy`` does.

    Args:
        name: for people.
        class_axis: the axis of the model's outputs that runs over classes, 1 as torch's losses have it or -1; None:
            decided by the labels' shape.

    Raises:
        SettingsError: ``class_axis`` is another number.
    """

    name: str = "categorical"
    class_axis: int | None = None

    gain_free = True
    shift_free = True
    least_outputs = 2
    link = "softmax"
    radius = 2.0
    boundary = _BetweenClasses()

    def __post_init__(self) -> None:
        check_fields(self, of=Categorical)
        if self.class_axis not in (None, 1, -1):
            raise SettingsError(
                f"class_axis is 1, -1 or None, got {self.class_axis!r}", where="output law", remedy="give one of these"
            )

    def classes(self, outputs: int) -> int:
        """One per output."""
        return outputs

    def log_probabilities(self, f: Tensor) -> Tensor:
        """Log-softmax."""
        return torch.log_softmax(f, -1)

    def residual(self, f: Tensor, y: Tensor) -> Tensor:
        """p − onehot(y), or p − y for a distribution; 0 at padded positions.

        The entry of the label is minus the sum of the others: 1 − p of a sure prediction is rounding.
        """
        p = torch.softmax(f, -1)
        if soft(f, y):
            likely = y.argmax(-1)
            return _summing_to_nought(p - y.to(f.dtype), likely)
        return _summing_to_nought(p, y.clamp_min(0)) * self.weight(f, y).unsqueeze(-1)

    def fisher_root(self, f: Tensor) -> Tensor:
        """(..., C, C); column c is √p_c (e_c − p)."""
        p = torch.softmax(f, -1)
        likely = torch.nn.functional.one_hot(p.argmax(-1), p.shape[-1]).to(p.dtype)
        others = torch.where(likely > 0, (p * (1 - likely)).sum(-1, keepdim=True), 1 - p)
        roots, off_diagonal = p.sqrt(), 1 - torch.eye(p.shape[-1], dtype=p.dtype, device=p.device)
        return torch.diag_embed(roots * others) - p.unsqueeze(-1) * roots.unsqueeze(-2) * off_diagonal

    def merged_root(self, f: Tensor, share: float) -> Tensor:
        """A root with the improbable classes merged into one (see ``memspace.task.merged``)."""
        return merged_root(torch.softmax(f, -1), share)

    def merged_columns(self, f: Tensor, share: float) -> int:
        """One more than the most classes kept at any position."""
        ordered = torch.softmax(f, -1).sort(-1, descending=True).values
        return 1 + int(kept_classes(ordered, share).max())

    def fisher_matvec(self, f: Tensor, u: Tensor) -> Tensor:
        """p ∘ (u − p·u), with u counted from the likeliest class: a shift of u changes nothing but the rounding."""
        p = torch.softmax(f, -1)
        u = u - u.gather(-1, p.argmax(-1, keepdim=True).expand(*u.shape[:-1], 1))
        return p * (u - (p * u).sum(-1, keepdim=True))

    def coordinates(self, f: Tensor) -> Tensor:
        """2√p, as 2 exp(½ log p): where p rounds to 0, the derivative of √p would be infinite."""
        return 2 * torch.exp(self.log_probabilities(f) / 2)

    def mean(self, f: Tensor) -> Tensor:
        """Class probabilities."""
        return torch.softmax(f, -1)

    def predict(self, f: Tensor) -> Tensor:
        """The class of the largest logit."""
        return f.argmax(-1)

    def null_output(self, y: Tensor, outputs: int) -> Tensor:
        """Log class frequencies; a class never seen gets half a count."""
        if y.is_floating_point():
            counts = y.reshape(-1, outputs).double().sum(0)
        else:
            counts = torch.bincount(y[y != IGNORE].reshape(-1), minlength=outputs).double()
        counts = counts.clamp_min(0.5)
        return torch.log(counts / counts.sum())

    def check(self, f: Tensor, y: Tensor, where: str) -> None:
        """Check that labels are classes in [0, C), or -100 for padding, or distributions, for two outputs or more.

        Raises:
            LabelError: they are not.
        """
        if f.shape[-1] < self.least_outputs:
            raise LabelError(
                "a categorical law needs at least two outputs and the model has one",
                where=where,
                remedy="use likelihood=Bernoulli() for one logit, Gaussian() or Poisson() for a number",
            )
        super().check(f, y, where)


def _summing_to_nought(r: Tensor, label: Tensor) -> Tensor:
    """``r`` with the label's entry such that all entries sum to 0."""
    label = label.unsqueeze(-1)
    rest = r.scatter(-1, label, 0.0)
    return rest.scatter(-1, label, -rest.sum(-1, keepdim=True))
