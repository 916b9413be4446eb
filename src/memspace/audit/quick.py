"""EKFAC read for leave-one-out alone: three passes, several dampings at once, none of an audit's other stages."""

from __future__ import annotations

import math
from bisect import bisect_left
from dataclasses import dataclass

import torch
from torch import Tensor

from memspace.audit.common import Truth, damping_grid
from memspace.audit.plan import Plan
from memspace.audit.reading import HeldOut
from memspace.measures.damping import DampingChoice, evidence_damping, expected_loss, match_damping
from memspace.measures.leave_one_out import loo_outputs
from memspace.metric.fisher import bases_of, kronecker_of
from memspace.metric.spectral import Kronecker
from memspace.passes.engine import run_pass
from memspace.passes.forms import Bases
from memspace.passes.leverage import KroneckerInfluence, KroneckerLeverage, QueryGradients
from memspace.passes.statistics import CorrectedEigenvalues, KroneckerFactors, Outputs
from memspace.progress import Progress
from memspace.task.data import Data
from memspace.task.space import ParameterSpace
from memspace.task.task import Task

__all__ = ["Quick", "read_quick"]

DAMPINGS = tuple(10 ** (k / 2) for k in range(-6, 2))  # relative to the grid's unit, two per decade


@dataclass(frozen=True)
class Quick:
    """EKFAC of the training data, with the leverage of every example at each damping.

    Args:
        f, y: (n, C) outputs and labels.
        metric: EKFAC; bases, values: its eigenbases and eigenvalues by block.
        grid: D dampings γ, ascending; leverage: (n, D, C, C); parts: (n, D, L) self-influence by block, nats.
    """

    task: Task
    space: ParameterSpace
    f: Tensor
    y: Tensor
    metric: Kronecker
    bases: dict[str, Bases]
    values: dict[str, Tensor]
    grid: tuple[float, ...]
    leverage: Tensor
    parts: Tensor

    def choose(self, refits: HeldOut | None, labels: Truth) -> DampingChoice:
        """γ where leave-one-out agrees with the refits; without any, of greatest evidence."""
        if len(self.grid) == 1:
            nan = float("nan")
            return DampingChoice(self.grid[0], "given", (), (), nan, nan, True, f"γ = {self.grid[0]:.2g} was given")
        if refits is None:
            return evidence_damping(self.metric, self.space.flat(self.task.model), len(self.f))
        at = refits.index.to(self.y.device)
        seen, law = self.y[at], self.task.likelihood
        every = [self._loo(self.leverage[:, k], at) for k in range(len(self.grid))]
        if labels.truth is not None:
            target = expected_loss(refits.f, labels.truth)
            estimates = [expected_loss(f, labels.truth) for f in every]
        else:
            target = law.nll(refits.f.double(), seen)
            estimates = [law.nll(f, seen) for f in every]
        return match_damping(torch.stack(estimates), self.grid, target, "networks that did not see the examples")

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
        return loo_outputs(self.task.likelihood, self.f[at], self.y[at], leverage[at])

    def influence(self, x: Data, damping: float, progress: Progress) -> Tensor:
        """(Q, n) nats: what leaving out a training example adds to the loss of each example of ``x``, first order."""
        blocks, n = self.space.blocks, len(self.f)
        inverse = {b.name: 1 / (n * (self.values[b.name] + damping)) for b in blocks}
        queries = QueryGradients(blocks, self.bases, inverse, len(x), n)
        run_pass(self.task, self.space, [queries], data=x)
        scores = KroneckerInfluence(blocks, queries.finish(), {k: self.bases[k] for k in queries.rotated})
        run_pass(self.task, self.space, [scores], progress=progress, what="neighbours in influence")
        return scores.finish()["influence"].t().double()


def read_quick(
    task: Task, space: ParameterSpace, plan: Plan, seed: int, progress: Progress, given: float | None = None
) -> Quick:
    """Factors, corrected eigenvalues, leverage. ``given``: this damping alone."""
    blocks, n = space.blocks, plan.n
    factors, table = KroneckerFactors(blocks, "mc"), Outputs()
    run_pass(task, space, [factors, table], seed=seed, most=plan.batch, progress=progress, what="Kronecker factors")
    bases, _ = bases_of(factors.factors())
    corrected = CorrectedEigenvalues(blocks, bases, "mc")
    run_pass(task, space, [corrected], seed=seed + 1, most=plan.batch, progress=progress, what="corrected eigenvalues")
    sums = corrected.state()
    values = {b.name: sums[f"eig/{b.name}"] / sums["n"] for b in blocks}
    metric = kronecker_of(blocks, bases, values, True, "mc", 0.0)
    unit = damping_grid(metric.trace().value / max(metric.effective_dimension(1e-12).value, 1.0))
    grid = (given,) if given is not None else tuple(unit * g for g in DAMPINGS)
    inverse = {b.name: torch.stack([1 / (n * (values[b.name] + g)) for g in grid]) for b in blocks}
    leverage = KroneckerLeverage(blocks, bases, inverse)
    run_pass(task, space, [leverage], most=plan.batch, progress=progress, what="leverage at every damping")
    done, outs = leverage.finish(), table.finish()
    return Quick(task, space, outs["f"], outs["y"], metric, bases, values, grid, done["leverage"], done["parts"])
