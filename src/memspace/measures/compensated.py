"""Pruning by the inverse of the Fisher matrix: what stays makes up for what goes (the optimal brain surgery family).

In rounds, at the weights as they are by then: the Fisher rows and the gradient are computed again; weights whose
removal costs least, θ*_q²/(2[(F+γI)⁻¹]_qq) with θ* the free optimum, are removed together; all others take the change
of least m(δ) (``memspace.metric.constrained``). Hassibi & Stork 1993; in rounds as Singh & Alistarh 2020; the joint
solve replaces one weight at a time. γ near zero trusts the rows, γ → ∞ is pruning by magnitude: a few are tried, for
choice and change, and the one with the least *measured* objective on training examples is taken.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

import torch
from torch import Tensor

from memspace.arguments import check_fields
from memspace.errors import MemoryBudgetError
from memspace.limits import BYTES, COUNT, SEED, Limit, one_of
from memspace.measures.objective import OBJECTIVES, Objective
from memspace.metric.constrained import Factored, RowMetric
from memspace.passes.collect import CollectRows
from memspace.passes.engine import PassOptions, run_pass
from memspace.passes.outputs import outputs
from memspace.passes.space import ParameterSpace
from memspace.progress import Progress, Silent
from memspace.task.checks import holding
from memspace.task.task import Task

__all__ = ["PruneSettings", "Pruned", "fisher_rows", "prune_compensated", "schedule"]

STRUCTURES = ("joint", "layers")
PART = Limit(1e-6, 1, below=True)
CHOICE = (1e-1, 10.0, 1000.0)  # γ of the choice, in units of the rows' mean eigenvalue
CHANGE = (1e-2, 1e-1, 1.0, 10.0, 100.0)  # and of the change


@dataclass(frozen=True)
class Pruned:
    """A network with weights set to zero.

    Args:
        method: how they were chosen.
        share: of the prunable weights that remain.
        flat: (P,) all weights.
        kept: (P,) False exactly at the weights removed.
        objective: measured objective of the change; None where the method has none.
    """

    method: str
    share: float
    flat: Tensor
    kept: Tensor
    objective: float | None = None


@dataclass(frozen=True)
class PruneSettings:
    """How compensated pruning works.

    Args:
        objective: ``function`` or ``loss``, see ``memspace.measures.objective``.
        rows: Fisher rows per round (sampled labels, one row each; all rows exactly where there are no more).
        structure: ``joint`` for the whole F, ``layers`` for its diagonal blocks by layer.
        step: of the weights left at most this share is kept in one round.
        examples: training examples the objective is measured on, at most.
        memory: bytes for the rows.
        seed: of examples and sampled labels.

    Raises:
        SettingsError: one of them is out of its range.
    """

    objective: str = "function"
    rows: Annotated[int, COUNT] = 1000
    structure: str = "joint"
    step: Annotated[float, PART] = 0.5
    examples: Annotated[int, COUNT] = 2000
    memory: Annotated[int, BYTES] = 2**30
    seed: Annotated[int, SEED] = 0

    def __post_init__(self) -> None:
        check_fields(self)
        one_of(self.objective, OBJECTIVES, "objective")
        one_of(self.structure, STRUCTURES, "structure")


def schedule(shares: Sequence[float], step: float) -> list[float]:
    """List the shares after each round: those asked for, with rounds between where one would cut too much.

    Args:
        shares: of weights that shall remain.
        step: least share of the remaining weights that one round leaves.

    Returns:
        descending shares; every share asked for is among them.
    """
    out, now = [], 1.0
    for share in sorted(set(shares), reverse=True):
        while share < now * step * (1 - 1e-9):
            now *= step
            out.append(now)
        out.append(share)
        now = share
    return out


def fisher_rows(
    task: Task, space: ParameterSpace, count: int, *, seed: int, memory: int, structure: str = "joint"
) -> RowMetric:
    """Collect rows of the Fisher matrix at the model's weights: all of them where they fit, else of sampled labels.

    Args:
        task: the network and its training data.
        space: the parameters.
        count: rows at most.
        seed: random seed of sampled labels and examples.
        memory: bytes that the rows may take.
        structure: ``joint``, or ``layers`` for a metric that is block-diagonal by layer.

    Returns:
        the rows as a metric; exact where all fit, else unbiased.

    Raises:
        MemoryBudgetError: not even a few rows fit.
    """
    n, row_bytes = len(task.train), torch.finfo(task.dtype).bits // 8 * space.size
    most = min(count, memory // (4 * row_bytes))
    if most < min(16, n):
        raise MemoryBudgetError(
            f"16 Fisher rows of {space.size:,} weights need {64 * row_bytes / 2**30:.1f} GiB",
            where="memory budget",
            remedy="raise --memory or prune by --method fisher-diagonal",
        )
    f, _ = outputs(task, task.train, index=torch.arange(1))
    exact = n * f.numel() <= most
    generator = torch.Generator().manual_seed(seed)
    index = torch.arange(n) if exact or n <= most else torch.randperm(n, generator=generator)[:most].sort().values
    samples = max(1, most // n)
    kind = "exact" if exact else "mc" if samples == 1 else f"mc:{samples}"
    collect = CollectRows(space.blocks, kind)
    run_pass(task, space, [collect], PassOptions(index=index, seed=seed))
    rows = collect.finish()
    formed = torch.cat([rows.formed(b).to(task.dtype) for b in space.blocks], 1)
    parts = [slice(b.start, b.stop) for b in space.blocks] if structure == "layers" else [slice(0, space.size)]
    return RowMetric(formed, len(index), tuple(parts))


def prune_compensated(
    task: Task,
    space: ParameterSpace,
    prunable: Tensor,
    shares: Sequence[float],
    surgery: PruneSettings | None = None,
    progress: Progress | None = None,
) -> list[Pruned]:
    """Remove weights in rounds, with the change of the remaining ones that costs least under the Fisher metric.

    Weights that are not prunable (biases, norms) take part in the compensation. Each round continues from the one
    before.

    Args:
        task: the network and its training data.
        space: the parameters.
        prunable: (P,) True where a weight may go.
        shares: of the prunable weights that shall remain.
        surgery: settings; None: the defaults.
        progress: where the rounds report.

    Returns:
        one network for each share, the largest first.
    """
    surgery, progress = surgery or PruneSettings(), progress or Silent()
    generator = torch.Generator().manual_seed(surgery.seed + 1)
    index = torch.randperm(len(task.train), generator=generator)[: surgery.examples].sort().values
    objective = Objective(task, space, surgery.objective, index)
    theta, free = space.flat(task.model), torch.ones_like(prunable)
    total, networks = int(prunable.sum()), []
    state = {k: v.clone() for k, v in task.model.state_dict().items() if isinstance(v, Tensor)}
    rounds = schedule(shares, surgery.step)
    for number, share in enumerate(progress.track(rounds, "pruning by fisher-inverse", len(rounds))):
        with holding(task.model, state | space.unpack(theta)):
            metric = fisher_rows(
                task,
                space,
                surgery.rows,
                seed=surgery.seed + 2 + number,
                memory=surgery.memory,
                structure=surgery.structure,
            )
        theta, free, value = _round(metric, objective, theta, free, prunable, round(share * total))
        if share in shares:
            networks.append(Pruned("fisher-inverse", share, theta, free, value))
    return networks


def _round(
    metric: RowMetric, objective: Objective, theta: Tensor, free: Tensor, prunable: Tensor, keep: int
) -> tuple[Tensor, Tensor, float]:
    """The weights, those still free and the measured objective after one round."""
    gradient = objective.gradient(theta)
    unit = float(metric.rows.square().sum(dtype=torch.float64)) / metric.n / min(len(metric.rows), metric.size)
    unit = max(unit, 1e-12)
    before, tried = metric.factor(free), []
    for choice in CHOICE:
        left = _chosen(before, theta, gradient, prunable, keep, unit * choice + objective.curvature)
        after = before.without(before.free & ~left)
        tried += [(*_changed(after, objective, theta, gradient, unit * c + objective.curvature), left) for c in CHANGE]
    value, moved, left = min(tried, key=lambda t: t[0])
    return moved, left, value


def _chosen(before: Factored, theta: Tensor, gradient: Tensor, prunable: Tensor, keep: int, damping: float) -> Tensor:
    """Which weights stay free when all but ``keep`` of the prunable ones go."""
    goal = theta.double() + before.change(torch.zeros_like(theta), gradient, damping)
    saliency = goal.square() / before.inverse_diagonal(damping).clamp_min(1e-300)
    candidates = before.free & prunable
    order = torch.where(candidates, saliency, torch.inf).argsort()
    left = before.free.clone()
    left[order[: int(candidates.sum()) - keep]] = False
    return left


def _changed(
    after: Factored, objective: Objective, theta: Tensor, gradient: Tensor, damping: float
) -> tuple[float, Tensor]:
    change = after.change(-theta, gradient, damping)
    moved = torch.where(after.free, (theta.double() + change).to(theta), torch.zeros_like(theta))
    value = objective(moved)
    return (math.inf if math.isnan(value) else value), moved
