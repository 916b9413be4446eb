"""The Fisher metric in relative changes of the weights, F̃ = Θ F Θ with Θ = diag(θ).

Scaling a ReLU unit's inputs by c and its outputs by 1/c maps θ to Dθ with a diagonal D, F to D⁻¹ F D⁻¹ and Θ to DΘ, so
F̃ stays the same matrix. Exchanging hidden units permutes its rows and columns. Every function of its spectrum is thus
unchanged by both, while those of F are not. F scaled to a unit diagonal stays the same matrix, too.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from memspace.passes.space import ParameterSpace
from memspace.progress import Progress
from memspace.reading.fisher_rows import RowPlan, formed_rows
from memspace.task.task import Task

__all__ = ["SMALL", "Rank", "RelativeMetric", "numerical_rank", "read_relative"]

SMALL = 1200  # parameters up to which any number of examples is read: their rows are reduced to as many as parameters
ZERO = 1e-12  # singular values of the root below this share of the largest are rounding (float64)
APART = 100.0  # a rank is sure where the least singular value counted is so many times the largest that is not


@dataclass(frozen=True)
class Rank:
    """Number of singular values that are not zero.

    Args:
        count: of singular values above ``ZERO`` of the largest.
        apart: the least of them over the largest of the others, or over the rounding error where there are none.
    """

    count: int
    apart: float

    @property
    def sure(self) -> bool:
        """Whether the singular values counted stand apart from the others."""
        return self.apart >= APART


@dataclass(frozen=True)
class RelativeMetric:
    """F of some examples by a root of it.

    Args:
        plan: the examples it is the mean over.
        theta: (P,) the weights, float64.
        space: the parameters.
        root: (R, P) with F = rootᵀ root; triangular where the rows of the examples are more than the parameters.
        norms: (n,) θᵀ F_i θ of each example, nats.
    """

    plan: RowPlan
    theta: Tensor
    space: ParameterSpace
    root: Tensor
    norms: Tensor

    def diagonal(self) -> Tensor:
        """Return the diagonal of F.

        Returns:
            (P,) nats per squared weight unit.
        """
        return self.root.square().sum(0)

    def eigenvalues(self) -> Tensor:
        """Compute the eigenvalues of F̃ = Θ F Θ that can differ from zero.

        Returns:
            (min(R, P),) largest first, nats.
        """
        return _singular(self.root * self.theta).square()

    def rank(self, part: slice = slice(None)) -> Rank:
        """Count the directions that move predictions.

        F is scaled to a unit diagonal first. This changes no rank, and makes the rounding error unchanged by scaling.

        Args:
            part: positions of the parameters meant; all by default.

        Returns:
            the rank of F, or of that part of it.
        """
        rows = self.root[:, part]
        sizes = rows.square().sum(0)
        return numerical_rank(_singular(rows[:, sizes > 0] / sizes[sizes > 0].sqrt()))

    def flatness(self, directions: Tensor) -> Tensor:
        """Compute vᵀFv / vᵀ diag(F) v: 0 where a direction moves no prediction at all.

        Args:
            directions: v (D, P).

        Returns:
            (D,) pure numbers, from 0; 0 where no weight of v moves a prediction by itself.
        """
        above = (directions @ self.root.t()).square().sum(1)
        below = directions.square() @ self.diagonal()
        return torch.where(below > 0, above / below.clamp_min(1e-300), torch.zeros_like(above))


def numerical_rank(values: Tensor) -> Rank:
    """Count singular values that are more than rounding.

    Args:
        values: (k,) largest first.

    Returns:
        their number, and how far they stand apart from the others.
    """
    if not len(values) or float(values[0]) == 0:
        return Rank(0, float("inf"))
    count = int((values > ZERO * values[0]).sum())
    rounding = len(values) * torch.finfo(values.dtype).eps * float(values[0])
    largest = max(rounding, float(values[count])) if count < len(values) else rounding
    return Rank(count, float(values[count - 1]) / largest)


def _singular(rows: Tensor) -> Tensor:
    """Singular values of (R, P), largest first.

    Of the triangle of an orthogonal decomposition, which has the same ones: taken of wide rows themselves, LAPACK needs
    minutes where this needs seconds.
    """
    if not rows.numel():
        return rows.new_zeros(0)
    tall = rows if len(rows) > rows.shape[1] else rows.t()
    values: Tensor = torch.linalg.svdvals(torch.linalg.qr(tall, mode="r").R)
    return values


def read_relative(task: Task, space: ParameterSpace, plan: RowPlan, progress: Progress | None = None) -> RelativeMetric:
    """Read F of some examples, in one pass.

    Args:
        task: the network in double precision, and its data.
        space: the parameters.
        plan: the examples.
        progress: notified of every batch; None: silent.

    Returns:
        the metric.
    """
    theta = space.flat(task.model).double()
    norms = torch.zeros(plan.n, dtype=torch.float64, device=theta.device)
    root, waiting, count = theta.new_zeros(0, space.size), [], 0
    for rows, example in formed_rows(task, space, plan, progress):
        norms.index_add_(0, example, (rows @ theta).square())
        waiting.append(rows / plan.n**0.5)
        count += len(rows)
        if count > 2 * space.size:  # a triangle of P rows has the same F, and the singular values to full precision
            root, waiting, count = torch.linalg.qr(torch.cat([root, *waiting]), mode="r").R, [], 0
    return RelativeMetric(plan, theta, space, torch.cat([root, *waiting]), norms)
