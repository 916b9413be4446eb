"""The streamed backend: EKFAC from Monte-Carlo labels in two passes, leverage and influence in a third."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from memspace.attempt import attempt
from memspace.auditing.common import (
    QUERIES,
    choose_damping,
    explained,
    pick_queries,
    query_data,
    stage,
    test_outputs,
    total,
)
from memspace.auditing.judge import judge
from memspace.auditing.plan import AuditSettings, Plan
from memspace.auditing.reading import HeldOut, Reading
from memspace.auditing.store import Store
from memspace.measures.cost import EIGH, Facts, Stage
from memspace.measures.damping import GRID, damping_unit
from memspace.measures.leave_one_out import first_order_losses, loo_outputs
from memspace.metric.fisher import bases_of, exact_probe, kronecker_of
from memspace.metric.metric import Estimate, Fidelity, FisherMetric, SpectralFunction, fidelity
from memspace.metric.spectral import Kronecker
from memspace.passes.engine import MANY, PassOptions, run_pass
from memspace.passes.leverage import KroneckerInfluence, KroneckerLeverage, QueryGradients
from memspace.passes.linearise import FisherOperator
from memspace.passes.offload import Disk
from memspace.passes.space import ParameterSpace
from memspace.passes.statistics import (
    CorrectedEigenvalues,
    DiagonalFisher,
    GradientNorms,
    KroneckerFactors,
    Outputs,
    SampleSpread,
)
from memspace.progress import Progress
from memspace.task.data import Data
from memspace.task.task import Task

__all__ = ["ekfac_backend"]

FIDELITY_EXAMPLES, FIDELITY_PROBES = 1000, 4
CALIBRATED = 2000  # held-out examples at most that the damping is matched on


def ekfac_backend(
    task: Task,
    space: ParameterSpace,
    plan: Plan,
    settings: AuditSettings,
    store: Store | None,
    progress: Progress,
    held_out: HeldOut | None,
) -> Reading:
    """EKFAC, leverage under it, its fidelity to exact products."""
    law, blocks, n = task.likelihood, space.blocks, plan.n
    disk = Disk() if plan.on_disk else None

    def first() -> dict[str, Tensor]:
        factors, diagonal, table = (
            KroneckerFactors(blocks, plan.kind, disk),
            DiagonalFisher(blocks, plan.kind),
            Outputs(),
        )
        run_pass(
            task,
            space,
            [factors, diagonal, table],
            PassOptions(seed=settings.seed, what="Kronecker factors", most=plan.batch, progress=progress),
        )
        return factors.state() | diagonal.state() | table.finish()

    one = stage(store, "factors", first)
    f, y = one["f"], one["y"]
    factors = KroneckerFactors(blocks, plan.kind)
    factors.restore(one)
    bases, _ = bases_of(factors.each(), disk)
    del factors

    def second() -> dict[str, Tensor]:
        corrected = CorrectedEigenvalues(blocks, bases, plan.kind)
        # With one label an example its spread cannot be told from the examples': norms then carry both.
        spread = [SampleSpread(blocks, plan.kind)] if plan.samples > 1 else []
        single = [GradientNorms(blocks, plan.kind)] if plan.samples == 1 and plan.first_order else []
        run_pass(
            task,
            space,
            [corrected, *spread, *single],
            PassOptions(seed=settings.seed + 1, what="corrected eigenvalues", most=plan.batch, progress=progress),
        )
        return corrected.state() | (spread[0].state() if spread else {}) | (single[0].state() if single else {})

    two = stage(store, "eigenvalues", second)
    values = {b.name: two[f"eig/{b.name}"] / two["n"] for b in blocks}
    sampling = float(two["variance"].sqrt() / two["n"]) if "variance" in two else 0.0
    metric = kronecker_of(blocks, bases, values, True, plan.kind, sampling)
    kind = "empirical" if plan.first_order else "jacobian"

    def inverse(dampings: list[float]) -> dict[str, Tensor]:
        return {b.name: torch.stack([1 / (n * (values[b.name] + g)) for g in dampings]) for b in blocks}

    cache: dict[float, Tensor] = {}
    subset = None if held_out is None else held_out.index[:CALIBRATED]
    trimmed = (
        None
        if held_out is None or subset is None
        else HeldOut(subset, held_out.f[:CALIBRATED], held_out.folds, held_out.seconds)
    )

    def estimate(g: float) -> Tensor:
        assert subset is not None
        if not cache:
            unit = damping_unit(metric)
            grid = [x * unit for x in GRID]
            at_once = max(1, settings.memory // (4 * 8 * space.size))
            for part in (grid[i : i + at_once] for i in range(0, len(grid), at_once)):
                table = KroneckerLeverage(blocks, bases, inverse(part), kind)
                run_pass(
                    task,
                    space,
                    [table],
                    PassOptions(
                        index=subset, what="leave-one-out at every damping", most=plan.batch, progress=progress
                    ),
                )
                done = table.finish()
                for d, x in enumerate(part):
                    if plan.first_order:
                        loss = total(law.nll(f[subset].double(), y[subset]))
                        cache[x] = first_order_losses(loss, done["parts"][:, d].sum(1))
                    else:
                        cache[x] = loo_outputs(law, f[subset], y[subset], done["leverage"][:, d], own=False)
        return cache[g]

    theta = space.flat(task.model)
    damping = choose_damping(task, settings, trimmed, y, estimate, metric, theta, n)
    test_f, test_y = test_outputs(task)
    qf, qy = (test_f, test_y) if test_f is not None and test_y is not None else (f, y)
    queries = pick_queries(task, settings, qf, qy)

    def third() -> dict[str, Tensor]:
        inverse = {b.name: 1 / (n * (values[b.name] + damping.value)) for b in blocks}
        gradients = QueryGradients(blocks, bases, inverse, len(queries), n)
        asked = Data((query_data(task).batch(queries).x, explained(task, qf[queries], qy[queries]).cpu()))
        run_pass(task, space, [gradients], PassOptions(data=asked, batch=min(8, plan.batch)))
        weights = {b.name: torch.stack([torch.ones_like(values[b.name]), inverse[b.name]]) for b in blocks}
        table = KroneckerLeverage(blocks, bases, weights, kind)
        scores = KroneckerInfluence(blocks, gradients.finish(), {k: bases[k] for k in gradients.rotated})
        run_pass(
            task, space, [table, scores], PassOptions(what="leverage and influence", most=plan.batch, progress=progress)
        )
        return table.finish() | scores.finish()

    three = stage(store, "leverage", third)
    parts = three["parts"][:, 1].double()
    base_loss = total(law.nll(f.double(), y))
    if plan.first_order:
        v, loo = None, None
        loo_loss = first_order_losses(base_loss, parts.sum(1))
        per_example = None
        drawn = two["norms"].sum(1) if "norms" in two else torch.zeros(1)
        error = float(drawn.std() / len(drawn) ** 0.5) if len(drawn) > 1 else sampling
        mean_trace = (metric.trace().value, error)
    else:
        v = three["leverage"][:, 1].double()
        loo = loo_outputs(law, f, y, v, own=False)
        loo_loss = law.nll(loo, y)
        root = law.fisher_root(f.double())
        per_example = torch.einsum("nck,ncd,ndk->n", root, three["leverage"][:, 0].double(), root)
        mean_trace = (float(per_example.mean()), 0.0)
    matched = damping.reliable and held_out is not None
    labels = judge(task, f, y, refits=held_out, loo=loo, matched=matched, seed=settings.seed)
    measured = attempt("fisher.fidelity_error", lambda: _fidelity(task, space, metric, plan, settings, mean_trace[0]))
    return Reading(
        task=task,
        space=space,
        f=f,
        y=y,
        loss=base_loss,
        weight=law.weight(f, y),
        test_f=test_f,
        test_y=test_y,
        metric=metric,
        diagonal=torch.cat([one[f"diag/{b.name}"].flatten() for b in blocks]) / one["n"],
        fidelity=measured,
        layer_trace=_layers(metric),
        trace=per_example,
        mean_trace=mean_trace,
        damping=damping,
        leverage=v,
        parts=parts,
        loo_f=loo,
        loo_loss=loo_loss,
        held_out=held_out,
        labels=labels,
        queries=queries,
        influence=three["influence"].t().double(),
        estimator=f"EKFAC, {_counted(plan.samples)} per example for factors and eigenvalues",
    )


def _counted(samples: int) -> str:
    return "one Monte-Carlo label" if samples == 1 else f"{samples} Monte-Carlo labels"


def _layers(metric: Kronecker) -> Callable[[SpectralFunction], Tensor]:
    return lambda fn: torch.stack([fn(b.values).sum() for b in metric.blocks])


def _fidelity(
    task: Task, space: ParameterSpace, metric: FisherMetric, plan: Plan, settings: AuditSettings, trace: float
) -> Fidelity:
    generator = torch.Generator().manual_seed(settings.seed + 2)
    index = torch.randperm(plan.n, generator=generator)[:FIDELITY_EXAMPLES].sort().values
    operator = FisherOperator(task, space, index=index, batch=plan.batch)
    return fidelity(metric, exact_probe(operator, FIDELITY_PROBES, settings.seed + 3, Estimate(trace)))


def costs(facts: Facts) -> list[Stage]:
    """State the passes of this backend."""
    n, each = facts.n, 1 if facts.first_order else facts.columns
    kept, turned = facts.signals_memory + facts.bases_memory, 2 * n * facts.rotation
    s, unit = facts.samples, facts.batch(facts.samples) != facts.batch(each)
    first = facts.read(s, facts.proofs(n, s))
    last = facts.read(each, facts.proofs(n, each) if unit and n < MANY else 0)
    probes = facts.product(FIDELITY_EXAMPLES, FIDELITY_PROBES, 1, proven=n < MANY and n <= facts.batch(s))
    stages = [
        Stage("Kronecker factors", n, *first, kept, "bases of EKFAC, diagonal", work=EIGH * facts.decompositions),
        Stage("eigenvalues", n, *facts.read(s), kept, "EKFAC's corrected spectrum", work=s * turned),
        Stage("leverage", n, *last, kept, "every example: leave-one-out, influence", work=(each + 1) * turned),
        Stage("queries", min(QUERIES, facts.judged), *facts.read(1, 1), 0, "influence on single predictions"),
        Stage("fidelity", min(n, FIDELITY_EXAMPLES), *probes, 0, "distance of EKFAC from exact products"),
    ]
    if facts.folds:
        m = min(CALIBRATED, facts.folds * facts.held_out)
        read, why = facts.read(each, facts.proofs(m, each)), "leave-one-out at every damping"
        stages.insert(2, Stage("damping", m, *read, kept, why, work=2 * m * each * facts.rotation))
    return stages
