"""The definition of an output law p(y | f): five methods it must have, abilities and a boundary that some have.

Shapes: ``f`` is ``(..., C)``, outputs of the network; labels ``y`` are of the shape of f, or ``(...)`` whole numbers
where they are classes. Leading axes are examples and, for sequences, positions; every method is elementwise over them.
Unit: nats. ``H`` is the Fisher information of the law in f, a (C, C) matrix per position.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod

import torch
from torch import Tensor

from memspace.errors import TaskError
from memspace.task.laws import defaults

__all__ = ["Boundary", "LawDefinition", "boundary_of"]


class Boundary(ABC):
    """The boundary between a law's decisions, for laws that know it in closed form.

    A *gap* is linear in the outputs and positive while the decision stands.

    Attributes:
        stretch: the norm of a gap's gradient in the outputs, so that outputs moved by d move a gap by at most
            ``stretch``·‖d‖.
        largest_information: the least upper bound over all outputs of λ_max(H), nats.
    """

    stretch: float
    largest_information: float

    @abstractmethod
    def gaps(self, f: Tensor, decision: Tensor) -> Tensor:
        """Return the gaps of a decision.

        Args:
            f: outputs (n, C).
            decision: as the law's ``predict`` gives it.

        Returns:
            (n, K) numbers in units of the outputs, infinite where there is nothing to change to.
        """

    @abstractmethod
    def gap_rows(self, jacobian: Tensor, decision: Tensor) -> Tensor:
        """Return the gradients of the gaps.

        Args:
            jacobian: (n, C, D) gradients of the outputs in anything.
            decision: as the law's ``predict`` gives it.

        Returns:
            (n, K, D), zero where there is nothing to change to.
        """

    @abstractmethod
    def distance(self, f: Tensor) -> Tensor:
        """Return the exact Fisher–Rao distance from p(·|f) to the nearest law with another decision.

        Args:
            f: outputs (n, C).

        Returns:
            (n,), nats^½.
        """


class LawDefinition(ABC):
    """The five methods that define a law, and abilities that are None, empty or False where it does not have them.

    Attributes:
        name: for people.
        continuous: labels are real numbers with a density, so that the loss moves with their unit.
        independent: label c follows a law of output c alone, so that H is diagonal and H_cc is a function of f_c.
        classifies: ``predict`` gives decisions, so that accuracy means something.
        gain_free: predictions stay as they are when the outputs are multiplied by a positive number.
        shift_free: one number added to all outputs of a position changes nothing.
        least_outputs: the fewest outputs C that the law makes sense for.
        class_axis: the axis of the model's outputs that becomes the last one, 1 or -1; None: decided by the labels.
        link: what outputs may be instead, decided by their values (see ``memspace.task.reading.LINKS``); "" for none.
        radius: of the sphere that :meth:`coordinates` lie on; infinite: of flat space.
        boundary: where decisions change, None where that has no closed form.
    """

    name: str
    continuous: bool = False
    independent: bool = False
    classifies: bool = False
    gain_free: bool = False
    shift_free: bool = False
    least_outputs: int = 1
    class_axis: int | None = -1
    link: str = ""
    radius: float = math.inf
    boundary: Boundary | None = None

    # What a law must define.

    @abstractmethod
    def nll(self, f: Tensor, y: Tensor) -> Tensor:
        """Compute −log p(y | f) per position.

        Args:
            f: outputs (..., C).
            y: labels, of the shape of f or (...) classes.

        Returns:
            (...), nats.
        """

    @abstractmethod
    def fisher_root(self, f: Tensor) -> Tensor:
        """Compute a root S with S Sᵀ = H.

        Args:
            f: outputs (..., C).

        Returns:
            (..., C, K), nats^½; each of the K columns costs a backward pass.
        """

    @abstractmethod
    def quantile(self, f: Tensor, u: Tensor) -> Tensor:
        """Find the label whose cumulative probability first reaches u.

        At uniform u it is a draw from p(y | f).

        Args:
            f: outputs (..., C).
            u: numbers in (0, 1), of the shape that ``drawn`` gives.

        Returns:
            Labels.
        """

    @abstractmethod
    def kl(self, f: Tensor, f2: Tensor) -> Tensor:
        """Compute KL(p(·|f) ‖ p(·|f2)) per position.

        Args:
            f: outputs (..., C).
            f2: outputs (..., C).

        Returns:
            (...), nats, not negative.
        """

    @abstractmethod
    def mean(self, f: Tensor) -> Tensor:
        """Compute E[y | f].

        Args:
            f: outputs (..., C).

        Returns:
            Of the shape of f; of classes their probabilities, (..., K).
        """

    # What only some laws have.

    def classes(self, outputs: int) -> int | None:
        """Give the number of classes that a label is one of.

        Args:
            outputs: C.

        Returns:
            K; None where a label is no class.
        """
        return None

    @property
    def has_classes(self) -> bool:
        """Whether a label is one class."""
        return self.classes(self.least_outputs) is not None

    def log_probabilities(self, f: Tensor) -> Tensor | None:
        """Compute log p of every class.

        Args:
            f: outputs (..., C).

        Returns:
            (..., K), nats; None where a label is no class.
        """
        return None

    def log_odds(self, f: Tensor, k: Tensor) -> Tensor | None:
        """Compute log p_k − log(1 − p_k) of a class per position.

        Args:
            f: outputs (..., C).
            k: classes (...).

        Returns:
            (...), nats; None where a label is no class.
        """
        log_p = self.log_probabilities(f)
        if log_p is None:
            return None
        k = k.unsqueeze(-1)
        return log_p.gather(-1, k).squeeze(-1) - torch.logsumexp(log_p.scatter(-1, k, -torch.inf), -1)

    def decisions(self, f: Tensor, y: Tensor) -> tuple[Tensor, Tensor] | None:
        """Give the D separate choices a label consists of.

        Args:
            f: outputs (n, C).
            y: labels.

        Returns:
            Log-probabilities (n, D, K) of the K values of each choice, and the values chosen (n, D), whole numbers;
            None where labels are no choices.
        """
        return None

    def coordinates(self, f: Tensor) -> Tensor | None:
        """Compute φ(f) with ‖dφ‖² = dfᵀ H df, in flat space or on a sphere of ``radius``.

        Outputs that are independent, or one alone, have flat coordinates ∫√H_cc df_c, here integrated numerically.

        Args:
            f: outputs (..., C).

        Returns:
            (..., M), nats^½; None where they are not known.
        """
        return defaults.flat_coordinates(self, f) if self.independent or f.shape[-1] == 1 else None

    def tails(self, y: Tensor, f: Tensor) -> tuple[Tensor, Tensor] | None:
        """Compute P(Y < y) and P(Y ≤ y) of every number of a label, here by halving intervals of :meth:`quantile`.

        Args:
            y: labels of the shape of f.
            f: outputs (..., C).

        Returns:
            Two tensors of the shape of f; None where labels are no numbers.
        """
        numbers = self.independent and not self.classifies
        return defaults.bisected_tails(self, y, f) if numbers else None

    def standardised(self, y: Tensor, f: Tensor, spread: Tensor, u: Tensor) -> Tensor | None:
        """Compute residuals that are standard normal where the law is right.

        By default Φ⁻¹(P(Y < y) + u P(Y = y)), averaged over normal outputs (randomised quantile residuals, Dunn &
        Smyth 1996), cut at eight standard deviations.

        Args:
            y: (n, C) targets.
            f: (n, C) outputs that did not see them.
            spread: (n, C, C) covariance of these outputs.
            u: (..., n, C) in (0, 1), the place within the step of a discrete law.

        Returns:
            (..., n, C); None where labels are no numbers.
        """
        return defaults.quantile_residuals(self, y, f, spread, u)

    def scale(self, f: Tensor) -> Tensor | None:
        """Give σ of normal noise.

        Args:
            f: outputs (..., C).

        Returns:
            A tensor that multiplies outputs; None for laws with other noise or none.
        """
        return None


def boundary_of(law: LawDefinition) -> Boundary:
    """Return the boundary of a law that has one.

    Args:
        law: any.

    Returns:
        Its boundary.

    Raises:
        TaskError: the law's predictions are no decisions, or their boundary is not known in closed form.
    """
    if law.boundary is None:
        raise TaskError(
            f"the output law {law.name} has no known boundary between decisions",
            where="likelihood",
            remedy="give it a boundary, or use Categorical or Bernoulli",
        )
    return law.boundary
