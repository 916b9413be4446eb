"""The exact backend: Jacobian rows kept in factored form, their Gram matrix decomposed."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from memspace.auditing.common import (
    QUERIES,
    choose_damping,
    explained,
    pick_queries,
    query_data,
    stage,
    test_outputs,
)
from memspace.auditing.judge import judge
from memspace.auditing.plan import AuditSettings, Plan
from memspace.auditing.reading import HeldOut, Reading
from memspace.auditing.stationary import known_damping, settled
from memspace.auditing.store import Store
from memspace.measures.cost import EIGH, Facts, Stage
from memspace.measures.leave_one_out import loo_outputs
from memspace.metric.dual import Dual, select_rows
from memspace.metric.leverage import DualLeverage
from memspace.metric.metric import SpectralFunction
from memspace.passes.collect import CollectRows
from memspace.passes.engine import PassOptions, run_pass
from memspace.passes.rows import Rows
from memspace.passes.space import ParameterSpace
from memspace.passes.statistics import DiagonalFisher, Outputs
from memspace.progress import Progress
from memspace.task.data import Data
from memspace.task.task import Task

__all__ = ["exact_backend"]


def _rows_of(
    task: Task, space: ParameterSpace, data: Data, index: Tensor | None, plan: Plan, progress: Progress
) -> tuple[Rows, dict[str, Tensor]]:
    rows, table = CollectRows(space.blocks, "jacobian"), Outputs()
    run_pass(
        task,
        space,
        [rows, table],
        PassOptions(data=data, index=index, most=plan.batch, progress=progress, what="Jacobian rows"),
    )
    return rows.finish(), table.finish()


def exact_backend(
    task: Task,
    space: ParameterSpace,
    plan: Plan,
    settings: AuditSettings,
    store: Store | None,
    progress: Progress,
    held_out: HeldOut | None,
) -> Reading:
    """Exact metric, leverage and influence."""
    law = task.likelihood

    def first() -> dict[str, Tensor]:
        rows, table = _rows_of(task, space, task.train, None, plan, progress)
        return _tensors_of(rows) | {"f": table["f"], "y": table["y"]}

    one = _on(task, stage(store, "rows", first))
    jacobian, f, y = _rows_from(space, one), one["f"], one["y"]
    root = law.fisher_root(f.double())
    step = progress.start("eigendecomposition of the Gram matrix", 3)
    selection = select_rows(jacobian, root, plan.principal_rows, seed=settings.seed)
    progress.advance(step)

    def second() -> dict[str, Tensor]:
        made = Dual.of(selection, len(f))
        return {"values": made.values, "vectors": made.vectors}

    two = _on(task, stage(store, "gram", second))
    chance = selection.chance if selection.drawn else None
    metric = Dual(selection.rows, len(f), two["values"], two["vectors"], selection.drawn, chance=chance)
    progress.advance(step)
    leverage = DualLeverage.of(jacobian, metric, plan.outputs, selection.missing)
    progress.advance(step)
    progress.finish(step)
    chosen = torch.arange(len(f)) if held_out is None else held_out.index

    def estimate(g: float) -> Tensor:
        return loo_outputs(law, f, y, leverage.matrices(g))[chosen]

    theta = space.flat(task.model)
    known = known_damping(task, space)
    damping = choose_damping(task, settings, held_out, y, estimate, metric, theta, len(f), known)
    v = leverage.matrices(damping.value)
    loo = settled(task, f, y, leverage, damping)
    residual = law.residual(f.double(), y)
    test_f, test_y = test_outputs(task)
    qf, qy = (test_f, test_y) if test_f is not None and test_y is not None else (f, y)
    queries = pick_queries(task, settings, qf, qy)
    q_rows, _ = _rows_of(task, space, query_data(task), queries, plan, progress)
    asked = qf[queries].double()
    influence = leverage.influence(
        residual, q_rows, law.residual(asked, explained(task, asked, qy[queries])), damping.value
    )
    own = root.transpose(1, 2) @ leverage.own @ root
    per_example = own.diagonal(dim1=1, dim2=2).sum(-1)
    said = f", {selection.drawn:.0%} of the trace in rows that were drawn" if selection.drawn else ""
    matched = damping.reliable and held_out is not None
    labels = judge(task, f, y, refits=held_out, loo=loo, matched=matched, seed=settings.seed)

    def third() -> dict[str, Tensor]:
        diagonal = DiagonalFisher(space.blocks, "exact")
        run_pass(task, space, [diagonal], PassOptions(most=plan.batch, progress=progress, what="Fisher diagonal"))
        return diagonal.finish()

    sums = stage(store, "diagonal", third)
    return Reading(
        task=task,
        space=space,
        f=f,
        y=y,
        loss=law.nll(f.double(), y),
        weight=law.weight(f, y),
        test_f=test_f,
        test_y=test_y,
        metric=metric,
        diagonal=torch.cat([sums[f"diag/{b.name}"].flatten() for b in space.blocks]) / sums["n"],
        fidelity=None,
        layer_trace=_layers(metric),
        trace=per_example,
        mean_trace=(float(per_example.mean()), 0.0),
        damping=damping,
        leverage=v,
        parts=leverage.self_parts(residual, damping.value),
        loo_f=loo,
        loo_loss=law.nll(loo, y),
        held_out=held_out,
        labels=labels,
        queries=queries,
        influence=influence,
        estimator=f"exact dual, {len(metric.rows):,} Fisher rows{said}",
    )


def _tensors_of(rows: Rows) -> dict[str, Tensor]:
    """Rows as tensors by name."""
    factors = {f"a/{k}": v for k, v in rows.a.items()} | {f"g/{k}": v for k, v in rows.g.items()}
    return factors | {"example": rows.example}


def _rows_from(space: ParameterSpace, kept: dict[str, Tensor]) -> Rows:
    """Inverse of :func:`_tensors_of`."""
    a, g = ({k[2:]: v for k, v in kept.items() if k.startswith(side)} for side in ("a/", "g/"))
    return Rows(tuple(space.blocks), a, g, kept["example"])


def _on(task: Task, kept: dict[str, Tensor]) -> dict[str, Tensor]:
    """Tensors where the model is: what was kept comes back on the CPU."""
    return {k: v.to(task.device) for k, v in kept.items()}


def _layers(metric: Dual) -> Callable[[SpectralFunction], Tensor]:
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
    """State the passes of this backend."""
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
