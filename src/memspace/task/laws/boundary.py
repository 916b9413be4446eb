"""Where a law's decisions change: gaps that reach zero there, and how far that is."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING

from torch import Tensor

from memspace.errors import TaskError

if TYPE_CHECKING:
    from memspace.task.law import Likelihood

__all__ = ["Boundary", "boundary_of"]


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


def boundary_of(law: Likelihood) -> Boundary:
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
