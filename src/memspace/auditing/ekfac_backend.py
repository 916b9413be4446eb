"""The streamed backend: EKFAC from Monte-Carlo labels in two passes, leverage and influence in a third."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor

from memspace.attempt import attempt
from memspace.auditing.damping import Calibration
from memspace.auditing.job import ReadingJob, outputs_on_test_data
from memspace.auditing.plan import AuditSettings, Plan
from memspace.auditing.queries import QUERIES, Queries, queries_of
from memspace.auditing.reading import NO_LEVERAGE, Reading
from memspace.measures.correct import by_example
from memspace.measures.cost import EIGH, Facts, Stage
from memspace.measures.damping import DampingChoice
from memspace.measures.leave_one_out import first_order_losses, loo_outputs
from memspace.measures.values import (
    Curvature,
    HeldOut,
    LeaveOneOutLosses,
    LeaveOneOutOutputs,
    Leverage,
    QueryInfluence,
    SelfInfluence,
    TrainingOutputs,
)
from memspace.metric.ekfac import Ekfac, EkfacPasses
from memspace.metric.fidelity import exact_probe, fidelity
from memspace.metric.metric import Estimate, Fidelity, SpectralFunction
from memspace.metric.spectral import Kronecker
from memspace.passes.engine import MANY, PassOptions
from memspace.passes.linearise import FisherOperator
from memspace.passes.offload import Disk
from memspace.passes.space import ParameterSpace
from memspace.passes.statistic import Statistic
from memspace.passes.statistics import DiagonalFisher, GradientNorms, Outputs, SampleSpread
from memspace.task.task import Task
from memspace.value import Absent, present

__all__ = ["ekfac_backend"]

FIDELITY_EXAMPLES, FIDELITY_PROBES = 1000, 4
CALIBRATED = 2000  # held-out examples at most that the damping is matched on


@dataclass(frozen=True)
class _Read:
    """The metric, read by two passes.

    Args:
        f: outputs of the training data; y: their labels; diagonal: (P,) of F.
        options: of the passes to come.
    """

    task: Task
    plan: Plan
    ekfac: Ekfac
    f: Tensor
    y: Tensor
    diagonal: Tensor
    options: PassOptions

    @property
    def kind(self) -> str:
        """The cotangents that leverage is read by."""
        return "empirical" if self.plan.first_order else "jacobian"

    @property
    def loss(self) -> Tensor:
        """(n,) nats, summed over positions."""
        return by_example(self.task.likelihood.nll(self.f.double(), self.y))


@dataclass(frozen=True)
class _LeftOut:
    """The network without each example; outputs, leverage and traces only where leave-one-out is not first order."""

    losses: LeaveOneOutLosses
    outputs: LeaveOneOutOutputs | Absent
    leverage: Leverage | Absent
    trace: Tensor | None
    mean_trace: tuple[float, float]


def ekfac_backend(job: ReadingJob, held_out: HeldOut | Absent) -> Reading:
    """Read EKFAC, leverage under it, and its fidelity to exact products.

    Args:
        job: what to read, and how.
        held_out: outputs of networks that did not see the examples, or why there are none.

    Returns:
        what the chapters stand on.
    """
    task, space, settings = job.task, job.space, job.settings
    read = _read(job)
    damping = _damping(read, space, settings, held_out)
    training = TrainingOutputs(read.f, read.y, read.loss, task.likelihood.weight(read.f, read.y))
    test = outputs_on_test_data(task)
    queries = queries_of(task, settings, training, test)
    table = job.keep("leverage", lambda: _leverage(read, queries, damping.value))
    influence = SelfInfluence(table["parts"][:, 1].double())
    left_out = _left_out(read, table, influence)
    return Reading(
        task,
        space,
        training,
        test,
        _curvature(read, space, settings, left_out),
        damping,
        influence,
        QueryInfluence(queries.index, table["influence"].t().double()),
        left_out.losses,
        left_out.outputs,
        left_out.leverage,
        held_out,
    )


def _curvature(read: _Read, space: ParameterSpace, settings: AuditSettings, left_out: _LeftOut) -> Curvature:
    metric, trace = read.ekfac.metric, left_out.mean_trace[0]
    near = attempt("fisher.fidelity_error", lambda: _fidelity(read, space, settings, trace))
    how = f"EKFAC, {_counted(read.plan.samples)} per example for factors and eigenvalues"
    layers = _layers(metric)
    mean_trace = left_out.mean_trace
    return Curvature(metric, lambda: read.diagonal, layers, left_out.trace, mean_trace, near, how, len(read.f))


def _read(job: ReadingJob) -> _Read:
    """Run the two passes that make the metric, and outputs and diagonal with the first."""
    task, space, plan, options = job.task, job.space, job.plan, job.options
    passes = EkfacPasses(task, space, plan.kind, options, keep=job.keep, disk=Disk() if plan.on_disk else None)
    bases = passes.factored(DiagonalFisher(space.blocks, plan.kind), Outputs())
    first = bases.tensors
    diagonal = torch.cat([first[f"diag/{b.name}"].flatten() for b in space.blocks]) / first["n"]
    # With one label per example its spread is part of the examples' spread: norms then contain both.
    further: list[Statistic[Any]] = [SampleSpread(space.blocks, plan.kind)] if plan.samples > 1 else []
    if plan.samples == 1 and plan.first_order:
        further = [GradientNorms(space.blocks, plan.kind)]
    ekfac = passes.corrected(bases, *further)
    return _Read(task, plan, ekfac, first["f"], first["y"], diagonal, options)


def _damping(read: _Read, space: ParameterSpace, settings: AuditSettings, held_out: HeldOut | Absent) -> DampingChoice:
    refits = present(held_out)
    if refits is not None:
        refits = replace(refits, index=refits.index[:CALIBRATED], f=refits.f[:CALIBRATED])
    at_once = max(1, settings.memory // (4 * 8 * space.size))
    calibration = Calibration(read.task, space, read.ekfac.metric, read.y, partial(_estimates, read, at_once))
    return calibration.choose(settings.damping, refits)


def _estimates(read: _Read, at_once: int, grid: tuple[float, ...], index: Tensor) -> list[Tensor]:
    """Leave-one-out outputs (m, C) at every γ, or losses (m,) to first order; ``at_once``: γ values in one pass."""
    law, f, y = read.task.likelihood, read.f[index], read.y[index]
    options = read.options.but(index=index, what="leave-one-out at every damping")
    estimates: list[Tensor] = []
    for start in range(0, len(grid), at_once):
        dampings = grid[start : start + at_once]
        table = read.ekfac.leverage(read.ekfac.inverses(dampings), options, kind=read.kind)
        for d in range(len(dampings)):
            if read.plan.first_order:
                loss = by_example(law.nll(f.double(), y))
                estimates.append(first_order_losses(loss, table["parts"][:, d].sum(1)))
            else:
                estimates.append(loo_outputs(law, f, y, table["leverage"][:, d], own=False))
    return estimates


def _leverage(read: _Read, queries: Queries, damping: float) -> dict[str, Tensor]:
    """Read J F̂⁰ Jᵀ and J M⁻¹ Jᵀ of every example, and influence on the queries, in one pass."""
    ekfac = read.ekfac
    solved = ekfac.solved(queries.data, damping, min(8, read.plan.batch))
    weights = {k: torch.stack([torch.ones_like(v), v]) for k, v in ekfac.inverse(damping).items()}
    options = read.options.but(what="leverage and influence")
    return ekfac.leverage(weights, options, ekfac.scores(solved), kind=read.kind)


def _left_out(read: _Read, table: dict[str, Tensor], influence: SelfInfluence) -> _LeftOut:
    """What the leverage says of the network without each example."""
    law, f, y = read.task.likelihood, read.f, read.y
    if read.plan.first_order:
        norms = read.ekfac.tensors.get("norms")
        drawn = torch.zeros(1) if norms is None else norms.sum(1)
        error = float(drawn.std() / len(drawn) ** 0.5) if len(drawn) > 1 else read.ekfac.sampling
        mean_trace = (read.ekfac.metric.trace().value, error)
        losses = LeaveOneOutLosses(first_order_losses(read.loss, influence.total))
        return _LeftOut(losses, NO_LEVERAGE, NO_LEVERAGE, None, mean_trace)
    leverage = table["leverage"][:, 1].double()
    loo = loo_outputs(law, f, y, leverage, own=False)
    root = law.fisher_root(f.double())
    trace = torch.einsum("nck,ncd,ndk->n", root, table["leverage"][:, 0].double(), root)
    losses, mean_trace = LeaveOneOutLosses(law.nll(loo, y)), (float(trace.mean()), 0.0)
    return _LeftOut(losses, LeaveOneOutOutputs(loo), Leverage(leverage), trace, mean_trace)


def _counted(samples: int) -> str:
    return "one Monte-Carlo label" if samples == 1 else f"{samples} Monte-Carlo labels"


def _layers(metric: Kronecker) -> Callable[[SpectralFunction], Tensor]:
    return lambda fn: torch.stack([fn(b.values).sum() for b in metric.blocks])


def _fidelity(read: _Read, space: ParameterSpace, settings: AuditSettings, trace: float) -> Fidelity:
    generator = torch.Generator().manual_seed(settings.seed + 2)
    index = torch.randperm(len(read.f), generator=generator)[:FIDELITY_EXAMPLES].sort().values
    operator = FisherOperator(read.task, space, index=index, batch=read.plan.batch)
    return fidelity(read.ekfac.metric, exact_probe(operator, FIDELITY_PROBES, settings.seed + 3, Estimate(trace)))


def costs(facts: Facts) -> list[Stage]:
    """State the passes of this backend.

    Args:
        facts: what the plan knows.

    Returns:
        the stages in order.
    """
    n, per_example = facts.n, 1 if facts.first_order else facts.columns
    memory, turned = facts.signals_memory + facts.bases_memory, 2 * n * facts.rotation
    s, unit = facts.samples, facts.batch(facts.samples) != facts.batch(per_example)
    first = facts.read(s, facts.proofs(n, s))
    last = facts.read(per_example, facts.proofs(n, per_example) if unit and n < MANY else 0)
    probes = facts.product(FIDELITY_EXAMPLES, FIDELITY_PROBES, 1, proven=n < MANY and n <= facts.batch(s))
    stages = [
        Stage("Kronecker factors", n, *first, memory, "bases of EKFAC, diagonal", work=EIGH * facts.decompositions),
        Stage("eigenvalues", n, *facts.read(s), memory, "EKFAC's corrected spectrum", work=s * turned),
        Stage("leverage", n, *last, memory, "every example: leave-one-out, influence", work=(per_example + 1) * turned),
        Stage("queries", min(QUERIES, facts.judged), *facts.read(1, 1), 0, "influence on single predictions"),
        Stage("fidelity", min(n, FIDELITY_EXAMPLES), *probes, 0, "distance of EKFAC from exact products"),
    ]
    if facts.folds:
        m = min(CALIBRATED, facts.folds * facts.held_out)
        read, why = facts.read(per_example, facts.proofs(m, per_example)), "leave-one-out at every damping"
        stages.insert(2, Stage("damping", m, *read, memory, why, work=2 * m * per_example * facts.rotation))
    return stages
