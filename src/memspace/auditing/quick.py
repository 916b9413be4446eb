"""A network read for leave-one-out alone: leverage at several dampings at once, none of an audit's other stages."""

from __future__ import annotations

import math
from bisect import bisect_left
from dataclasses import dataclass

import torch
from torch import Tensor

from memspace.auditing.plan import PRINCIPAL_ROWS, Plan
from memspace.auditing.reading import HeldOut
from memspace.measures.damping import DampingChoice, evidence_damping, match_damping
from memspace.measures.leave_one_out import loo_outputs
from memspace.metric.dual import Dual, select_rows
from memspace.metric.fisher import bases_of, kronecker_of
from memspace.metric.leverage import DualLeverage
from memspace.metric.metric import FisherMetric
from memspace.passes.collect import CollectRows
from memspace.passes.engine import PassOptions, run_pass
from memspace.passes.forms.bases import Bases
from memspace.passes.leverage import KroneckerInfluence, KroneckerLeverage, QueryGradients
from memspace.passes.space import ParameterSpace
from memspace.passes.statistics import CorrectedEigenvalues, KroneckerFactors, Outputs
from memspace.progress import Progress
from memspace.task.data import Data
from memspace.task.task import Task

__all__ = ["LeverageGrid", "Quick", "read_exact", "read_quick"]

_WHAT = "networks that did not see the examples"
DAMPINGS = tuple(10 ** (k / 2) for k in range(-7, 0))  # in largest eigenvalues of F, two per decade


@dataclass(frozen=True)
class LeverageGrid:
    """Every example's leverage at several dampings.

    Args:
        f, y: (n, C) outputs and labels.
        metric: F of the training data, for the evidence.
        grid: D dampings γ, ascending; leverage: (n, D, C, C).
        own: see ``loo_outputs``; estimator: for people; exact: the dual's leverage, at any damping.
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
        """γ where leave-one-out meets networks that did not see the examples, in loss on the labels as given.

        Without refits, of greatest evidence.
        """
        if len(self.grid) == 1:
            return DampingChoice.given(self.grid[0])
        if refits is None:
            return evidence_damping(self.metric, self.space.flat(self.task.model), len(self.f))
        at = refits.index.to(self.y.device)
        seen, law = self.y[at], self.task.likelihood
        every = [self._loo(self.leverage[:, k], at) for k in range(len(self.grid))]
        losses = torch.stack([law.excess(f, seen) for f in every])
        return match_damping(losses, self.grid, law.excess(refits.f.double(), seen), _WHAT)

    def leverage_at(self, damping: float) -> Tensor:
        """V (n, C, C) at γ: between two of the grid linear in log γ, beyond it the nearest."""
        above = min(max(bisect_left(self.grid, damping), 1), len(self.grid) - 1) if len(self.grid) > 1 else 0
        if above == 0:
            return self.leverage[:, 0].double()
        low, high = (math.log(self.grid[above + k]) for k in (-1, 0))
        share = min(1.0, max(0.0, (math.log(damping) - low) / (high - low)))
        return torch.lerp(self.leverage[:, above - 1].double(), self.leverage[:, above].double(), share)

    def leave_one_out(self, damping: float) -> Tensor:
        """Outputs (n, C) that each example would get without itself, float64."""
        return self._loo(self.leverage_at(damping), torch.arange(len(self.f), device=self.f.device))

    def _loo(self, leverage: Tensor, at: Tensor) -> Tensor:
        return loo_outputs(self.task.likelihood, self.f[at], self.y[at], leverage[at], own=self.own)


@dataclass(frozen=True)
class Quick:
    """EKFAC of the training data: leverage, and influence by two more passes.

    Args:
        at: leverage; bases, values: EKFAC's eigenbases and eigenvalues by block.
        parts: (n, D, L) self-influence by block, nats.
    """

    at: LeverageGrid
    bases: dict[str, Bases]
    values: dict[str, Tensor]
    parts: Tensor

    def influence(self, x: Data, damping: float, progress: Progress, less: Data | None = None) -> Tensor:
        """(Q, n) nats: what leaving out a training example adds to the loss of each example of ``x``, first order.

        Args:
            less: as many examples, whose own answer is taken off.
        """
        task, space, n = self.at.task, self.at.space, len(self.at.f)
        inverse = {b.name: 1 / (n * (self.values[b.name] + damping)) for b in space.blocks}

        def solved(data: Data) -> tuple[dict[str, Tensor], set[str]]:
            queries = QueryGradients(space.blocks, self.bases, inverse, len(data), n)
            run_pass(task, space, [queries], PassOptions(data=data))
            return queries.finish(), queries.rotated

        asked, rotated = solved(x)
        if less is not None:
            other, _ = solved(less)
            asked = {k: v - other[k] for k, v in asked.items()}
        scores = KroneckerInfluence(space.blocks, asked, {k: self.bases[k] for k in rotated})
        run_pass(task, space, [scores], PassOptions(progress=progress, what="neighbours in influence"))
        return scores.finish()["influence"].t().double()


def read_quick(
    task: Task, space: ParameterSpace, plan: Plan, seed: int, progress: Progress, given: float | None = None
) -> Quick:
    """Factors, corrected eigenvalues, leverage. ``given``: this damping alone."""
    blocks, n = space.blocks, plan.n
    factors, table = KroneckerFactors(blocks, "mc"), Outputs()
    run_pass(
        task,
        space,
        [factors, table],
        PassOptions(seed=seed, most=plan.batch, progress=progress, what="Kronecker factors"),
    )
    bases, _ = bases_of(factors.taken())
    corrected = CorrectedEigenvalues(blocks, bases, "mc")
    run_pass(
        task,
        space,
        [corrected],
        PassOptions(seed=seed + 1, most=plan.batch, progress=progress, what="corrected eigenvalues"),
    )
    sums = corrected.state()
    values = {b.name: sums[f"eig/{b.name}"] / sums["n"] for b in blocks}
    metric = kronecker_of(blocks, bases, values, True, "mc", 0.0)
    grid = (given,) if given is not None else _grid(max(float(v.max()) for v in values.values()))
    inverse = {b.name: torch.stack([1 / (n * (values[b.name] + g)) for g in grid]) for b in blocks}
    leverage = KroneckerLeverage(blocks, bases, inverse)
    run_pass(task, space, [leverage], PassOptions(most=plan.batch, progress=progress, what="leverage at every damping"))
    done, outs = leverage.finish(), table.finish()
    at = LeverageGrid(task, space, outs["f"], outs["y"], metric, grid, done["leverage"], False, "EKFAC")
    return Quick(at, bases, values, done["parts"])


def read_exact(
    task: Task, space: ParameterSpace, plan: Plan, seed: int, progress: Progress, given: float | None = None
) -> LeverageGrid:
    """The same by the exact dual: of the whole network, for as many Jacobian rows as fit."""
    rows, table = CollectRows(space.blocks, "jacobian"), Outputs()
    run_pass(task, space, [rows, table], PassOptions(most=plan.batch, progress=progress, what="Jacobian rows"))
    jacobian, outs = rows.finish(), table.finish()
    f = outs["f"]
    selection = select_rows(jacobian, task.likelihood.fisher_root(f.double()), PRINCIPAL_ROWS, seed=seed)
    metric = Dual.of(selection, len(f))
    exact = DualLeverage.of(jacobian, metric, plan.outputs, selection.missing)
    grid = (given,) if given is not None else _grid(float(metric.values[-1]) / metric.n)
    leverage = torch.stack([exact.matrices(g) for g in grid], 1)
    return LeverageGrid(task, space, f, outs["y"], metric, grid, leverage, True, "exact dual", exact)


def _grid(largest: float) -> tuple[float, ...]:
    return tuple(max(largest, 1e-12) * g for g in DAMPINGS)
