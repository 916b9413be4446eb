"""Leverage at several dampings in one pass, for leave-one-out outside an audit."""

from __future__ import annotations

import math
from bisect import bisect_left
from dataclasses import dataclass

import torch
from torch import Tensor

from memspace.auditing.damping import Calibration
from memspace.auditing.plan import PRINCIPAL_ROWS, Plan
from memspace.measures.damping import DampingChoice
from memspace.measures.leave_one_out import loo_outputs
from memspace.measures.values import HeldOut
from memspace.metric.ekfac import Ekfac, EkfacPasses
from memspace.metric.exact import exact_dual, read_jacobian
from memspace.metric.leverage import DualLeverage
from memspace.metric.metric import FisherMetric
from memspace.passes.engine import PassOptions, run_pass
from memspace.passes.space import ParameterSpace
from memspace.passes.statistics import Outputs
from memspace.progress import Progress
from memspace.task.data import Data
from memspace.task.task import Task

__all__ = ["LeverageGrid", "Quick", "read_exact", "read_quick"]

DAMPINGS = tuple(10 ** (k / 2) for k in range(-7, 0))  # in largest eigenvalues of F, two per decade


@dataclass(frozen=True)
class LeverageGrid:
    """Every example's leverage at several dampings.

    Args:
        task: the network and its training data.
        space: the parameters, laid out in blocks.
        f: (n, C) outputs.
        y: labels.
        metric: F of the training data, for the evidence.
        grid: D dampings γ, ascending.
        leverage: (n, D, C, C).
        own: see ``loo_outputs``.
        estimator: for people.
        exact: the dual's leverage, at any damping; None with EKFAC.
    """

    task: Task
    space: ParameterSpace
    f: Tensor
    y: Tensor
    metric: FisherMetric
    grid: tuple[float, ...]
    leverage: Tensor
    own: bool
    estimator: str
    exact: DualLeverage | None = None

    def choose(self, refits: HeldOut | None) -> DampingChoice:
        """Choose γ: the only one of the grid, by refits, or by the evidence (see :class:`Calibration`).

        Args:
            refits: outputs of networks that did not see the examples, or None.

        Returns:
            the choice.
        """

        def estimates(grid: tuple[float, ...], index: Tensor) -> list[Tensor]:
            at = index.to(self.y.device)
            return [self._loo(self.leverage[:, k], at) for k in range(len(grid))]

        only = self.grid[0] if len(self.grid) == 1 else None
        return Calibration(self.task, self.space, self.metric, self.y, estimates, self.grid).choose(only, refits)

    def leverage_at(self, damping: float) -> Tensor:
        """Return the leverage at γ: linear in log γ between two of the grid, beyond it the nearest.

        Args:
            damping: γ.

        Returns:
            V (n, C, C), float64.
        """
        above = min(max(bisect_left(self.grid, damping), 1), len(self.grid) - 1) if len(self.grid) > 1 else 0
        if above == 0:
            return self.leverage[:, 0].double()
        low, high = (math.log(self.grid[above + k]) for k in (-1, 0))
        share = min(1.0, max(0.0, (math.log(damping) - low) / (high - low)))
        return torch.lerp(self.leverage[:, above - 1].double(), self.leverage[:, above].double(), share)

    def leave_one_out(self, damping: float) -> Tensor:
        """Compute the outputs of each example without itself.

        Args:
            damping: γ.

        Returns:
            (n, C) float64.
        """
        return self._loo(self.leverage_at(damping), torch.arange(len(self.f), device=self.f.device))

    def _loo(self, leverage: Tensor, at: Tensor) -> Tensor:
        return loo_outputs(self.task.likelihood, self.f[at], self.y[at], leverage[at], own=self.own)


@dataclass(frozen=True)
class Quick:
    """EKFAC of the training data: leverage, and influence by two more passes.

    Args:
        at: leverage over the grid.
        ekfac: bases and eigenvalues.
        parts: (n, D, L) self-influence by block, nats.
    """

    at: LeverageGrid
    ekfac: Ekfac
    parts: Tensor

    def influence(self, x: Data, damping: float, progress: Progress, less: Data | None = None) -> Tensor:
        """Estimate what leaving out a training example adds to the loss of each example of ``x``, to first order.

        Args:
            x: examples, with the labels whose loss is meant.
            damping: γ.
            progress: where the pass reports.
            less: as many examples, whose own answer is taken off.

        Returns:
            (Q, n) nats.
        """
        asked = self.ekfac.solved(x, damping)
        if less is not None:
            asked = asked.less(self.ekfac.solved(less, damping))
        scores = self.ekfac.scores(asked)
        run_pass(self.at.task, self.at.space, [scores], PassOptions(progress=progress, what="neighbours in influence"))
        return scores.finish()["influence"].t().double()


def read_quick(
    task: Task, space: ParameterSpace, plan: Plan, seed: int, progress: Progress, given: float | None = None
) -> Quick:
    """Read factors, corrected eigenvalues and leverage by EKFAC.

    Args:
        task: the network and its data.
        space: the parameters, laid out in blocks.
        plan: of an audit.
        seed: of sampled labels.
        progress: where every pass reports.
        given: this damping alone.

    Returns:
        leverage at every damping of the grid.
    """
    options = PassOptions(most=plan.batch, progress=progress)
    passes = EkfacPasses(task, space, "mc", options.but(seed=seed))
    bases = passes.factored(Outputs())
    ekfac = passes.corrected(bases)
    grid = (given,) if given is not None else _grid(max(float(v.max()) for v in ekfac.values.values()))
    table = ekfac.leverage(ekfac.inverses(grid), options.but(what="leverage at every damping"))
    f, y = bases.tensors["f"], bases.tensors["y"]
    at = LeverageGrid(task, space, f, y, ekfac.metric, grid, table["leverage"], False, "EKFAC")
    return Quick(at, ekfac, table["parts"])


def read_exact(
    task: Task, space: ParameterSpace, plan: Plan, seed: int, progress: Progress, given: float | None = None
) -> LeverageGrid:
    """Read leverage by the exact dual: of the whole network, for as many Jacobian rows as fit.

    Args:
        task: the network and its data.
        space: the parameters, laid out in blocks.
        plan: of an audit.
        seed: of the draw of Fisher rows, where not all are held.
        progress: where the pass reports.
        given: this damping alone.

    Returns:
        leverage at every damping of the grid, and at any other by ``exact``.
    """
    jacobian = read_jacobian(task, space, PassOptions(most=plan.batch, progress=progress))
    exact = exact_dual(task, jacobian, limit=PRINCIPAL_ROWS, seed=seed)
    metric, f, y = exact.metric, jacobian.f, jacobian.y
    grid = (given,) if given is not None else _grid(float(metric.values[-1]) / metric.n)
    leverage = torch.stack([exact.leverage.matrices(g) for g in grid], 1)
    return LeverageGrid(task, space, f, y, metric, grid, leverage, True, "exact dual", exact.leverage)


def _grid(largest: float) -> tuple[float, ...]:
    return tuple(max(largest, 1e-12) * g for g in DAMPINGS)
