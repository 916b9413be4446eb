"""Laws whose label is one class: everything follows from the log-probabilities of the classes."""

from __future__ import annotations

from abc import abstractmethod

import torch
from torch import Tensor

from memspace.errors import LabelError
from memspace.task.law import IGNORE, Likelihood, not_negative, wrong_kind

__all__ = ["LawOfClasses", "soft"]


class LawOfClasses(Likelihood):
    """A law whose label is a class, or a distribution over the K classes against which the expected loss is taken.

    A new law defines :meth:`log_probabilities` and :meth:`classes`. A label of -100 marks a padded position.
    """

    classifies = True

    @abstractmethod
    def log_probabilities(self, f: Tensor) -> Tensor:
        """log p of every class, (..., K)."""

    @abstractmethod
    def classes(self, outputs: int) -> int:
        """K, given the number C of outputs."""

    def weight(self, f: Tensor, y: Tensor) -> Tensor:
        """0 where the label is -100 (padding)."""
        return torch.ones_like(f[..., 0]) if soft(f, y) else (y != IGNORE).to(f.dtype)

    def nll(self, f: Tensor, y: Tensor) -> Tensor:
        """Cross-entropy; 0 at padded positions."""
        log_p = self.log_probabilities(f)
        if soft(f, y):  # a class of share 0 adds nothing, also where its logit is −∞
            return -torch.where(y > 0, y * log_p, torch.zeros_like(log_p)).sum(-1)
        target = y.clamp_min(0).unsqueeze(-1)
        return -log_p.gather(-1, target).squeeze(-1) * self.weight(f, y)

    def fisher_root(self, f: Tensor) -> Tensor:
        """(..., C, min(C, K)); column k is √p_k ∂ log p_k/∂f, or the triangular factor of them all where K > C."""
        flat = f.reshape(-1, f.shape[-1])
        slopes = torch.func.vmap(torch.func.jacfwd(self.log_probabilities))(flat)
        root = slopes * (self.log_probabilities(flat) / 2).exp().unsqueeze(-1)  # (N, K, C)
        if root.shape[2] == 1:
            root = torch.linalg.vector_norm(root, dim=1, keepdim=True)
        elif root.shape[1] > root.shape[2]:
            root = torch.linalg.qr(root).R
        columns: Tensor = root.mT.reshape(*f.shape, -1)
        return columns

    def drawn(self, f: Tensor) -> tuple[int, ...]:
        """One number per position."""
        return tuple(f.shape[:-1])

    def quantile(self, f: Tensor, u: Tensor) -> Tensor:
        """Classes, in their own order; never one of probability 0."""
        reached = self.log_probabilities(f.to(u.dtype)).exp().cumsum(-1)
        total = reached[..., -1]
        # Rounding may lift u·total to the total, which no class exceeds.
        level = torch.minimum(u * total, torch.nextafter(total, torch.zeros_like(total)))
        return torch.searchsorted(reached, level.unsqueeze(-1), right=True).squeeze(-1)

    def kl(self, f: Tensor, f2: Tensor) -> Tensor:
        """Σ p (log p − log q)."""
        a, b = self.log_probabilities(f), self.log_probabilities(f2)
        return not_negative((a.exp() * (a - b)).sum(-1))

    def mean(self, f: Tensor) -> Tensor:
        """Class probabilities."""
        return self.log_probabilities(f).exp()

    def predict(self, f: Tensor) -> Tensor:
        """The most probable class."""
        return self.log_probabilities(f).argmax(-1)

    def hits(self, f: Tensor, y: Tensor) -> Tensor:
        """1 where the likeliest class is the label, or its share where the label is a distribution."""
        if soft(f, y):
            return y.to(f.dtype).gather(-1, self.predict(f).unsqueeze(-1)).squeeze(-1)
        return (self.predict(f) == y).to(f.dtype)

    def decisions(self, f: Tensor, y: Tensor) -> tuple[Tensor, Tensor] | None:
        """One choice among K classes, where each example has one label that is a class."""
        if f.dim() != 2 or y.dim() != 1:
            return None
        return self.log_probabilities(f).unsqueeze(1), y.unsqueeze(1)

    def check(self, f: Tensor, y: Tensor, where: str) -> None:
        """Check that labels are classes in [0, K), or -100 for padding, or distributions over the classes.

        Raises:
            LabelError: they are not.
        """
        if soft(f, y):
            _check_distribution(y, where)
            return
        if y.is_floating_point() and y.shape == f.shape[:-1] and bool(y.isnan().any()):
            raise LabelError(
                f"{int(y.isnan().sum())} labels are missing (NaN)",
                where=where,
                remedy="leave these examples out, or give them the label -100",
            )
        if y.dtype.is_floating_point or y.dtype.is_complex or y.dtype == torch.bool or y.shape != f.shape[:-1]:
            raise wrong_kind(self.name, y, f, where, f"integers of shape {tuple(f.shape[:-1])}")
        classes = self.classes(f.shape[-1])
        bad = ((y < 0) & (y != IGNORE)) | (y >= classes)
        if not bool(bad.any()):
            return
        remedy = f"the model has {classes} outputs: recode the labels or use a model with more classes"
        if classes != f.shape[-1]:
            remedy = f"the law has {classes} classes: recode the labels or give it more"
        other = torch.unique(y[bad])
        if len(other) == 1 and not bool(bad.all()):
            remedy = f"if {int(other)} means no label, put -100 in its place; {remedy}"
        raise LabelError(
            f"{int(bad.sum())} labels lie outside 0..{classes - 1} (smallest {int(y.min())}, largest {int(y.max())})",
            where=where,
            remedy=remedy,
        )


def soft(f: Tensor, y: Tensor) -> bool:
    """Tell whether labels are distributions: over as many classes as there are outputs.

    Args:
        f: outputs (..., C).
        y: labels.

    Returns:
        True where they are floats of the shape of f.
    """
    return y.is_floating_point() and y.shape[-1:] == f.shape[-1:] and y.dim() == f.dim()


def _check_distribution(y: Tensor, where: str) -> None:
    bad = ((y < 0) | ~torch.isfinite(y)).any(-1) | (~((y.double().sum(-1) - 1).abs() < 1e-3))
    if bool(bad.any()):
        raise LabelError(
            f"{int(bad.sum())} labels of shape {tuple(y.shape)}, that of the outputs, are no distributions over "
            "the classes",
            where=where,
            remedy="give classes as integers, or probabilities that are not negative and sum to one",
        )
