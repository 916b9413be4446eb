"""The exact backend: Jacobian rows kept in factored form, their Gram matrix decomposed."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from memspace.auditing.damping import Calibration
from memspace.auditing.job import ReadingJob, outputs_on_test_data
from memspace.auditing.plan import AuditSettings
from memspace.auditing.queries import QUERIES, queries_of, query_data
from memspace.auditing.reading import Reading
from memspace.auditing.stationary import known_damping, settled
from memspace.measures.cost import EIGH, Facts, Stage
from memspace.measures.damping import DampingChoice
from memspace.measures.leave_one_out import loo_outputs
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
from memspace.metric.dual import Dual
from memspace.metric.exact import Exact, exact_dual, read_jacobian
from memspace.metric.keep import Keep, read_tensors
from memspace.metric.metric import SpectralFunction
from memspace.passes.engine import PassOptions
from memspace.passes.space import ParameterSpace
from memspace.passes.statistics import DiagonalFisher
from memspace.task.task import Task
from memspace.value import Absent, present

__all__ = ["exact_backend", "layer_traces"]


def exact_backend(job: ReadingJob, held_out: HeldOut | Absent) -> Reading:
    """Read metric, leverage and influence exactly.

    Args:
        job: what to read, and how.
        held_out: outputs of networks that did not see the examples, or why there are none.

    Returns:
        what the chapters stand on.
    """
    task, space, settings, keep = job.task, job.space, job.settings, job.keep
    law, options = task.likelihood, job.options
    jacobian = read_jacobian(task, space, options, keep)
    f, y = jacobian.f, jacobian.y
    exact = exact_dual(
        task, jacobian, limit=job.plan.principal_rows, seed=settings.seed, keep=keep, progress=job.progress
    )
    damping = _damping(task, space, exact, settings, held_out)
    loo = settled(task, f, y, exact.leverage, damping)
    residual = law.residual(f.double(), y)
    training = TrainingOutputs(f, y, law.nll(f.double(), y), law.weight(f, y))
    test = outputs_on_test_data(task)
    queries = queries_of(task, settings, training, test)
    asked = read_jacobian(task, space, options.but(data=query_data(task), index=queries.index))
    towards = law.residual(queries.f.double(), queries.y)
    return Reading(
        task,
        space,
        training,
        test,
        _curvature(exact, _diagonal(task, space, options, keep)),
        damping,
        SelfInfluence(exact.leverage.self_parts(residual, damping.value)),
        QueryInfluence(queries.index, exact.leverage.influence(residual, asked.rows, towards, damping.value)),
        LeaveOneOutLosses(law.nll(loo, y)),
        LeaveOneOutOutputs(loo),
        Leverage(exact.leverage.matrices(damping.value)),
        held_out,
    )


def _curvature(exact: Exact, diagonal: Tensor) -> Curvature:
    trace, metric = exact.trace, exact.metric
    mean_trace, how = (float(trace.mean()), 0.0), _estimator(metric)
    return Curvature(metric, lambda: diagonal, layer_traces(metric), trace, mean_trace, None, how, len(trace))


def _damping(
    task: Task, space: ParameterSpace, exact: Exact, settings: AuditSettings, held_out: HeldOut | Absent
) -> DampingChoice:
    f, y = exact.jacobian.f, exact.jacobian.y

    def estimates(grid: tuple[float, ...], index: Tensor) -> list[Tensor]:
        return [loo_outputs(task.likelihood, f, y, exact.leverage.matrices(g))[index] for g in grid]

    calibration = Calibration(task, space, exact.metric, y, estimates)
    return calibration.choose(settings.damping, present(held_out), lambda: known_damping(task, space))


def _diagonal(task: Task, space: ParameterSpace, options: PassOptions, keep: Keep) -> Tensor:
    """Diagonal of F, (P,), as the stage ``diagonal``."""
    table = DiagonalFisher(space.blocks, "exact")
    sums = keep("diagonal", lambda: read_tensors(task, space, [table], options.but(what="Fisher diagonal")))
    return torch.cat([sums[f"diag/{b.name}"].flatten() for b in space.blocks]) / sums["n"]


def _estimator(metric: Dual) -> str:
    drawn = f", {metric.drawn:.0%} of the trace in rows that were drawn" if metric.drawn else ""
    return f"exact dual, {len(metric.rows):,} Fisher rows{drawn}"


def layer_traces(metric: Dual) -> Callable[[SpectralFunction], Tensor]:
    """Make the map from a function of F to its trace by block, for :class:`Curvature`.

    Args:
        metric: the dual; a Gram matrix for each block is read when the map is first called.

    Returns:
        fn ↦ (L,) traces; the blocks sum to the whole.
    """
    shares: list[Tensor] = []

    def trace(fn: SpectralFunction) -> Tensor:
        if not shares:  # share of each eigenvector's mass in each block: (L, R), columns sum to one
            for b in metric.rows.blocks:
                inner = metric.rows.dot(metric.rows, b) @ metric.vectors
                shares.append((inner * metric.vectors).sum(0) / metric.values)
        zero = fn(torch.zeros(1, dtype=torch.float64))
        gain = fn(metric.values / metric.n) - zero
        sizes = torch.tensor([b.size for b in metric.rows.blocks], dtype=torch.float64)
        return torch.stack(shares) @ gain + zero * sizes

    return trace


def costs(facts: Facts) -> list[Stage]:
    """State the passes of this backend.

    Args:
        facts: what the plan knows.

    Returns:
        the stages in order.
    """
    n, c, r = facts.n, facts.columns, facts.principal
    rows = n * facts.outputs
    work = 2 * rows * r * (2 * facts.floats + 3 * r) + EIGH * r**3
    first, asked = facts.read(c, facts.proofs(n, c)), facts.read(c, 1)
    stages = [
        Stage("Jacobian rows", n, *first, facts.dual_memory, "metric, leverage, influence", work=work),
        Stage("Fisher diagonal", n, *facts.read(c), facts.signals_memory, "pruning"),
        Stage("queries", min(QUERIES, facts.judged), *asked, 0, "influence on single predictions"),
    ]
    if facts.affine:
        stages.append(Stage("stationarity", n, 1, 1, 0, "whether the weight decay is the damping"))
    return stages
