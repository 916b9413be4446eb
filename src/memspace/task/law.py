"""What every output law p(y | f) offers; the laws themselves are in ``memspace.task.likelihood``."""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from torch import Tensor

from memspace.errors import LabelError

__all__ = ["IGNORE", "Likelihood", "not_negative", "wrong_kind"]

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

    def squared_distance(self, f: Tensor, f2: Tensor) -> Tensor:
        """The square of :meth:`distance`, nats; the laws here give it derivatives of any order, also at f = f2."""
        return self.distance(f, f2).square()

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

    def excess(self, f: Tensor, y: Tensor) -> Tensor:
        """:meth:`nll` above a constant of the law, so that it is not negative and does not move with y's unit, nats."""
        return self.nll(f, y)

    def floor(self, outputs: int) -> float:
        """What :meth:`nll` is never below at a position, nats; of a density it moves with y's unit."""
        return 0.0

    @property
    def trained_with(self) -> Likelihood:
        """The law whose negative log-likelihood a training minimises; this one, unless part of it was fitted later."""
        return self

    @property
    def unfitted(self) -> Likelihood:
        """The law without what was fitted to the network and its data, whose last digits depend on the machine."""
        return self

    def decisions(self, f: Tensor, y: Tensor) -> tuple[Tensor, Tensor] | None:
        """The D separate choices a label consists of; None where labels are no choices.

        Returns:
            log-probabilities (n, D, K) of the K values of each choice, and the values chosen (n, D), whole numbers.
        """
        return None

    def standardised(self, y: Tensor, f: Tensor, spread: Tensor, u: Tensor) -> Tensor | None:
        """Residuals (n, C) that are standard normal where the law is right; None where labels are no numbers.

        Args:
            y: (n, C) targets; f: (n, C) outputs that did not see them; spread: (n, C, C) covariance of these outputs.
            u: (n, C) in (0, 1), the place within the step of a discrete law.
        """
        return None

    def hits(self, f: Tensor, y: Tensor) -> Tensor:
        """Whether each decision agrees with its label, 0 or 1, of the shape of :meth:`predict`; 0 where padded.

        Against a distribution over classes it is the probability that the label is the predicted class.
        """
        return (self.predict(f) == y).to(f.dtype)

    def weight(self, f: Tensor, y: Tensor) -> Tensor:
        """1 per position that counts, 0 for padded positions (label -100); shape ``f.shape[:-1]``."""
        return torch.ones(f.shape[:-1], dtype=f.dtype, device=f.device)


def not_negative(t: Tensor) -> Tensor:
    """Put what rounding made negative to 0 and keep its derivative, which a clamp would put to 0 as well."""
    return torch.where(t < 0, t - t.detach(), t)


def wrong_kind(law: str, y: Tensor, f: Tensor, where: str, want: str) -> LabelError:
    """The error for labels whose dtype or shape the law cannot read; ``want`` says what it reads."""
    return LabelError(
        f"{law} labels must be {want}, found {str(y.dtype).removeprefix('torch.')} of shape {tuple(y.shape)} "
        f"for outputs of shape {tuple(f.shape)}",
        where=where,
        remedy="change the labels or the output law (likelihood=...)",
    )
