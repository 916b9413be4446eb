"""The slope of the loss in the Fisher metric, exactly, on a few examples.

With Jacobian rows J_i, residuals r_i = ∂ℓ_i/∂f_i and roots S_i S_iᵀ = H_i, the gradient is g = (1/n) Σ J_iᵀ r_i and
F = (1/n) RᵀR, R the stacked S_iᵀJ_i. Then with K = RRᵀ

    (F + λI)⁻¹ g = (g − Rᵀ (K + nλI)⁻¹ R g) / λ,

which needs nothing but the Gram matrix of the Jacobian rows: no vector of the parameters' length is ever solved for.
Where the network could fit every label (R of full row rank) and λ → 0, the squared slope is the mean of r_iᵀH_i⁺r_i;
for classes that is the mean of 1/p(y_i) − 1.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from memspace.metric.row_products import gram
from memspace.passes.collect import CollectRows
from memspace.passes.cotangent import output_cotangents
from memspace.passes.engine import PassOptions, run_pass
from memspace.passes.rows import Rows
from memspace.passes.space import ParameterSpace
from memspace.passes.statistics import Outputs
from memspace.task.likelihood import Likelihood
from memspace.task.task import Task

__all__ = ["ProbeDual", "Slope", "SlopeSignals", "affordable", "probe_dual", "signals", "slope"]

MAX_ROWS = 1000  # Jacobian rows (examples × outputs): each solve costs their cube


@dataclass(frozen=True)
class Slope:
    """‖∇L‖²_{(F+λI)⁻¹}, nats, and what each example adds to it.

    Args:
        squared: the value.
        effect: (n,) first-order change of ``squared`` per unit of an example's weight, mean zero: their standard
            deviation over √n is the standard error over examples.
        damped: −∂ ``squared``/∂ log λ = λ‖(F+λI)⁻¹∇L‖², nats: how much of it hangs on the damping.
    """

    squared: float
    effect: Tensor
    damped: float

    @property
    def value(self) -> float:
        """‖∇L‖, nats^½."""
        return math.sqrt(self.squared)

    @property
    def value_effect(self) -> Tensor:
        """First-order change of :attr:`value` per unit of an example's weight, (n,)."""
        return self.effect / (2 * self.value) if self.value > 0 else torch.zeros_like(self.effect)


@dataclass(frozen=True)
class ProbeDual:
    """A probe set in the dual, float64. C counts the outputs of one example over all its positions.

    Args:
        gram: (n, C, n, C), inner products of Jacobian rows.
        root: (n, C, K), S_i of every example.
        residual: (n, C), r_i of every example.
    """

    gram: Tensor
    root: Tensor
    residual: Tensor

    @property
    def trace(self) -> float:
        """tr F on the probe set, nats per squared unit of the parameters."""
        diagonal = torch.diagonal(self.gram, dim1=0, dim2=2)  # (C, C, n)
        return float(torch.einsum("cdi,ick,idk->", diagonal, self.root, self.root)) / len(self.root)

    def squared_gradient(self, of: int) -> float:
        """Estimate ‖∇L‖² of the mean loss over the examples that these were drawn from, unbiased.

        Args:
            of: number of those examples.

        Returns:
            Nats² per squared unit of the parameters.
        """
        n = len(self.residual)
        every = torch.einsum("ic,icjd,jd->ij", self.residual, self.gram, self.residual)
        alone, total = float(every.diagonal().sum()), float(every.sum())
        between = (total - alone) / (n * (n - 1)) if n > 1 else 0.0
        return (alone / n + (of - 1) * between) / of

    def slope(self, damping: float) -> Slope:
        """Compute the slope by one factorisation.

        Args:
            damping: λ > 0.

        Returns:
            The squared slope, with the examples' effects.
        """
        n, _, k = self.root.shape
        mixed = torch.einsum("ick,icjd->ikjd", self.root, self.gram)  # R Jᵀ
        dual = torch.einsum("ikjd,jdl->ikjl", mixed, self.root).reshape(n * k, n * k)
        dual.diagonal().add_(n * damping)
        along = torch.einsum("icjd,jd->ic", self.gram, self.residual) / n  # J g
        right = torch.einsum("ikjd,jd->ik", mixed, self.residual).reshape(-1, 1) / n  # R g
        dual_weights = torch.cholesky_solve(right, torch.linalg.cholesky(dual)).reshape(n, k)
        moved = (along - torch.einsum("ikjd,ik->jd", mixed, dual_weights)) / damping  # J (F + λI)⁻¹ g
        gained = (self.residual * moved).sum(1)
        spent = torch.einsum("ick,ic->ik", self.root, moved).square().sum(1)
        effect = 2 * gained - spent
        squared = max(0.0, float(gained.mean()))
        return Slope(squared, effect - effect.mean(), max(0.0, squared - float(spent.mean())))


@dataclass(frozen=True)
class SlopeSignals:
    """What slope and natural gradient are made of.

    Args:
        rows: Jacobian rows, C per example.
        outputs: (n, ..., C).
        y: labels.
        root: S_i as in :class:`ProbeDual`, (n, C, K) float64.
        residual: r_i as in :class:`ProbeDual`, (n, C) float64.
    """

    rows: Rows
    outputs: Tensor
    y: Tensor
    root: Tensor
    residual: Tensor


def signals(task: Task, space: ParameterSpace, index: Tensor, batch: int = 128) -> SlopeSignals:
    """Read Jacobian rows, Fisher roots and residuals in one pass.

    Args:
        task: the model, its law and data.
        space: the parameters.
        index: places of the training examples, (n,).
        batch: examples at a time.

    Returns:
        The signals of these examples.
    """
    rows, table = CollectRows(space.blocks, "jacobian"), Outputs()
    run_pass(task, space, [rows, table], PassOptions(index=index, batch=batch))
    t = table.finish()
    f = t["f"].double()
    law: Likelihood = task.likelihood
    root = output_cotangents("exact", law, f, t["y"]).flatten(2).permute(1, 2, 0)
    return SlopeSignals(rows.finish(), f, t["y"], root, law.residual(f, t["y"]).flatten(1))


def probe_dual(task: Task, space: ParameterSpace, index: Tensor, batch: int = 128) -> ProbeDual:
    """Read the dual of some examples in one pass.

    Memory: 8 (nC)² bytes for the Gram matrix, next to the rows in factored form.

    Args:
        task: the model, its law and data.
        space: the parameters.
        index: places of the training examples, (n,).
        batch: examples at a time.

    Returns:
        The Gram matrix with roots and residuals.
    """
    read = signals(task, space, index, batch)
    n, c = read.residual.shape
    return ProbeDual(gram(read.rows, torch.float64).reshape(n, c, n, c), read.root, read.residual)


def affordable(task: Task, space: ParameterSpace, index: Tensor, memory: int) -> tuple[int, int]:
    """Count the examples whose rows fit memory and ``MAX_ROWS``.

    Args:
        task: the model, its law and data.
        space: the parameters.
        index: places of training examples; the first one is read.
        memory: bytes.

    Returns:
        Number of examples, and the rows one example makes.
    """
    rows = CollectRows(space.blocks, "jacobian")
    run_pass(task, space, [rows], PassOptions(index=index[:1], batch=1))
    made = rows.finish()
    bytes_each = sum(t.numel() * t.element_size() for part in (made.a, made.g) for t in part.values())
    count = MAX_ROWS // len(made)
    # Four matrices of the Gram's size live at once; a block's rows are copied in float64 and formed.
    while count > 0 and 32 * (count * len(made)) ** 2 + 4 * count * bytes_each > memory:
        count -= 1
    return count, len(made)


def slope(task: Task, space: ParameterSpace, index: Tensor, damping: float, batch: int = 128) -> float:
    """Compute ‖∇L‖²_{(F+λI)⁻¹} of the mean loss over some examples; exact on those (float64).

    Args:
        task: the model, its law and data.
        space: the parameters.
        index: places of the training examples, (n,).
        damping: λ > 0.
        batch: examples at a time.

    Returns:
        Nats.
    """
    return probe_dual(task, space, index, batch).slope(damping).squared
