"""Reading a network by one of two roads to the same :class:`Reading`: the exact dual, or EKFAC streamed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from memspace.audit.held_out import refit_held_out
from memspace.audit.plan import PRINCIPAL_ROWS, Plan, Settings
from memspace.audit.reading import HeldOut, Reading
from memspace.audit.store import Store
from memspace.measures.damping import GRID, DampingChoice, evidence_damping, expected_loss, match_damping
from memspace.measures.labels import LabelModel, fit_label_model
from memspace.measures.leave_one_out import first_order_losses, loo_outputs
from memspace.metric.dual import Dual, select_rows
from memspace.metric.fisher import bases_of, exact_probe, kronecker_of
from memspace.metric.leverage import DualLeverage
from memspace.metric.metric import Estimate, Fidelity, FisherMetric, SpectralFunction, fidelity
from memspace.metric.spectral import Kronecker
from memspace.passes.engine import run_pass
from memspace.passes.leverage import KroneckerInfluence, KroneckerLeverage, QueryGradients
from memspace.passes.linearise import FisherOperator
from memspace.passes.outputs import outputs
from memspace.passes.rows import CollectRows, Rows
from memspace.passes.statistics import (
    CorrectedEigenvalues,
    DiagonalFisher,
    KroneckerFactors,
    Outputs,
)
from memspace.progress import Progress
from memspace.task.data import Data
from memspace.task.space import ParameterSpace
from memspace.task.task import Task

__all__ = ["read"]

QUERIES = 12
FIDELITY_EXAMPLES, FIDELITY_PROBES = 1000, 4


def read(
    task: Task, space: ParameterSpace, plan: Plan, settings: Settings, store: Store | None, progress: Progress
) -> Reading:
    """Run the plan's heavy stages."""
    held_out = _stored_held_out(task, plan, settings, store, progress)
    road = _dual if plan.representation == "dual" else _kronecker
    return road(task, space, plan, settings, store, progress, held_out)


def _stage(store: Store | None, name: str, compute: Callable[[], dict[str, Tensor]]) -> dict[str, Tensor]:
    """A stage's tensors: from the store where an interrupted run left them, else computed and kept."""
    if store is not None and store.has(name):
        return store.load_tensors(name)
    tensors = compute()
    if store is not None:
        store.save_tensors(name, tensors)
    return tensors


def _stored_held_out(
    task: Task, plan: Plan, settings: Settings, store: Store | None, progress: Progress
) -> HeldOut | None:
    if task.refit is None or plan.folds == 0:
        return None

    def compute() -> dict[str, Tensor]:
        fresh = refit_held_out(task, plan, settings.seed, progress)
        assert fresh is not None
        seconds = torch.tensor(fresh.seconds, dtype=torch.float64)
        return {"index": fresh.index, "f": fresh.f, "seconds": seconds}

    t = _stage(store, "held-out", compute)
    return HeldOut(t["index"], t["f"], plan.folds, float(t["seconds"]))


@dataclass(frozen=True)
class _Labels:
    """The label model and what it takes the true labels of some examples to be."""

    model: LabelModel | None
    truth: Tensor | None


def _labels(task: Task, held_out: HeldOut | None, y: Tensor) -> _Labels:
    if held_out is None or task.likelihood.name != "categorical" or y.dim() > 1:
        return _Labels(None, None)
    seen = y[held_out.index]
    model = fit_label_model(held_out.f, seen)
    return _Labels(model, model.posterior(held_out.f, seen))


def _choose_damping(
    task: Task,
    settings: Settings,
    held_out: HeldOut | None,
    labels: _Labels,
    y: Tensor,
    estimate: Callable[[float], Tensor],
    metric: FisherMetric,
    theta: Tensor,
    n: int,
) -> DampingChoice:
    """``estimate(γ)``: leave-one-out outputs (m, C) of the held-out examples, or their losses (m,) for sequences."""
    if settings.damping is not None:
        g = settings.damping
        return DampingChoice(g, "given", (), (), float("nan"), float("nan"), True, f"γ = {g:.2g} was given")
    if held_out is None:
        return evidence_damping(metric, theta, n)
    scale = metric.trace().value / max(metric.effective_dimension(1e-12).value, 1.0)
    grid = tuple(g * _decade(scale) for g in GRID)
    seen = y[held_out.index]
    if labels.truth is not None:
        target = expected_loss(held_out.f, labels.truth)
        rows = [expected_loss(estimate(g), labels.truth) for g in grid]
        what = "networks that did not see the examples (loss against the label they most likely truly have)"
    else:
        target = _total(task.likelihood.nll(held_out.f.double(), seen))
        rows = []
        for g in grid:
            e = estimate(g)
            rows.append(e if e.dim() == 1 else task.likelihood.nll(e, seen))
        what = "networks that did not see the examples"
    return match_damping(torch.stack(rows), grid, target, what)


def _decade(scale: float) -> float:
    """The grid spans 1e-4..1 in units of a power of ten near the mean non-zero eigenvalue times 10."""
    return 1.0 if scale <= 0 else float(10.0 ** round(torch.log10(torch.tensor(10 * scale)).item()))


def _total(per_position: Tensor) -> Tensor:
    return per_position.flatten(1).sum(1) if per_position.dim() > 1 else per_position


def _pick_queries(task: Task, settings: Settings, f: Tensor, y: Tensor) -> Tensor:
    """Test examples to explain: the given ones, else the worst mistakes and the least certain right answers."""
    if settings.queries is not None:
        return torch.tensor([q for q in settings.queries if 0 <= q < len(f)], dtype=torch.long)
    loss = _total(task.likelihood.nll(f.double(), y))
    order = loss.argsort(descending=True)
    if not task.likelihood.classifies or y.dim() > 1:
        return order[:QUERIES].cpu()
    wrong = (task.likelihood.predict(f) != y).reshape(len(f), -1).any(1)
    mistakes = order[wrong[order]][: QUERIES * 2 // 3]
    hard = order[~wrong[order]][: QUERIES - len(mistakes)]
    return torch.cat([mistakes, hard]).cpu()


def _query_data(task: Task) -> Data:
    return task.test if task.test is not None else task.train


def _test_outputs(task: Task) -> tuple[Tensor | None, Tensor | None]:
    return outputs(task, task.test) if task.test is not None else (None, None)


def _rows_of(
    task: Task, space: ParameterSpace, data: Data, index: Tensor | None, plan: Plan, progress: Progress
) -> tuple[Rows, dict[str, Tensor]]:
    rows, table = CollectRows(space.blocks, "jacobian"), Outputs()
    run_pass(
        task,
        space,
        [rows, table],
        data=data,
        index=index,
        batch=plan.batch,
        progress=progress,
        what="Jacobian rows",
    )
    return rows.finish(), table.finish()


def _dual(
    task: Task,
    space: ParameterSpace,
    plan: Plan,
    settings: Settings,
    store: Store | None,
    progress: Progress,
    held_out: HeldOut | None,
) -> Reading:
    law = task.likelihood
    jacobian, table = _rows_of(task, space, task.train, None, plan, progress)
    f, y = table["f"], table["y"]
    root = law.fisher_root(f.double())
    step = progress.start("eigendecomposition of the Gram matrix", 3)
    selection = select_rows(jacobian, root, PRINCIPAL_ROWS)
    progress.advance(step)
    metric = Dual.of(selection, len(f))
    progress.advance(step)
    leverage = DualLeverage.of(jacobian, metric, plan.outputs)
    progress.advance(step)
    progress.finish(step)
    labels = _labels(task, held_out, y)
    chosen = torch.arange(len(f)) if held_out is None else held_out.index

    def estimate(g: float) -> Tensor:
        return loo_outputs(law, f, y, leverage.matrices(g))[chosen]

    theta = space.flat(task.model)
    damping = _choose_damping(task, settings, held_out, labels, y, estimate, metric, theta, len(f))
    v = leverage.matrices(damping.value)
    loo = loo_outputs(law, f, y, v)
    residual = law.residual(f.double(), y)
    test_f, test_y = _test_outputs(task)
    qf, qy = (test_f, test_y) if test_f is not None and test_y is not None else (f, y)
    queries = _pick_queries(task, settings, qf, qy)
    q_rows, _ = _rows_of(task, space, _query_data(task), queries, plan, progress)
    influence = leverage.influence(residual, q_rows, law.residual(qf[queries].double(), qy[queries]), damping.value)
    own = root.transpose(1, 2) @ leverage.own @ root
    per_example = own.diagonal(dim1=1, dim2=2).sum(-1)
    left = f"; {selection.left_out:.1e} of the trace left out" if selection.left_out > 1e-9 else ""
    judge, label_f = _judge(labels.model, loo, held_out, y, task)
    diagonal = DiagonalFisher(space.blocks, "exact")
    run_pass(task, space, [diagonal], batch=plan.batch, progress=progress, what="Fisher diagonal")
    sums = diagonal.finish()
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
        layer_trace=_dual_layers(metric),
        trace=per_example,
        mean_trace=(float(per_example.mean()), 0.0),
        damping=damping,
        leverage=v,
        parts=leverage.self_parts(residual, damping.value),
        loo_f=loo,
        loo_loss=law.nll(loo, y),
        held_out=held_out,
        labels=judge,
        label_f=label_f,
        queries=queries,
        influence=influence,
        estimator=f"exact dual, {len(metric.values):,} principal rows{left}",
    )


def _judge(
    model: LabelModel | None, loo: Tensor | None, held_out: HeldOut | None, y: Tensor, task: Task
) -> tuple[LabelModel | None, Tensor | None]:
    """The label model and the out-of-sample outputs it judges by.

    Leave-one-out and refits that cover every example are two independent opinions: their tempered log-probabilities
    are added. Refits of a part only lend their estimate of the share of wrong labels.
    """
    if loo is None or task.likelihood.name != "categorical" or y.dim() > 1:
        return None, None
    if model is None or held_out is None:
        return fit_label_model(loo, y), loo
    alone = fit_label_model(loo, y, noise=model.noise, noise_error=model.noise_error)
    if len(held_out.index) < len(y):
        return alone, loo
    refits = torch.empty_like(loo)
    refits[held_out.index] = held_out.f.to(loo)
    joined = torch.log_softmax(loo / alone.temperature, -1) + torch.log_softmax(refits / model.temperature, -1)
    return fit_label_model(joined, y), joined


def _dual_layers(metric: Dual) -> Callable[[SpectralFunction], Tensor]:
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


def _kronecker(
    task: Task,
    space: ParameterSpace,
    plan: Plan,
    settings: Settings,
    store: Store | None,
    progress: Progress,
    held_out: HeldOut | None,
) -> Reading:
    law, blocks, n = task.likelihood, space.blocks, plan.n

    def first() -> dict[str, Tensor]:
        factors, diagonal, table = KroneckerFactors(blocks, "mc"), DiagonalFisher(blocks, "mc"), Outputs()
        run_pass(
            task,
            space,
            [factors, diagonal, table],
            seed=settings.seed,
            what="Kronecker factors",
            batch=plan.batch,
            progress=progress,
        )
        return factors.state() | diagonal.state() | table.finish()

    one = _stage(store, "factors", first)
    f, y = one["f"], one["y"]
    factors = KroneckerFactors(blocks, "mc")
    factors.restore(one)
    bases, _ = bases_of(factors.factors())

    def second() -> dict[str, Tensor]:
        corrected = CorrectedEigenvalues(blocks, bases, "mc")
        run_pass(
            task,
            space,
            [corrected],
            seed=settings.seed + 1,
            what="corrected eigenvalues",
            batch=plan.batch,
            progress=progress,
        )
        return corrected.state()

    two = _stage(store, "eigenvalues", second)
    values = {b.name: two[f"eig/{b.name}"] / two["n"] for b in blocks}
    metric = kronecker_of(blocks, bases, values, True, "mc")
    labels = _labels(task, held_out, y)
    sequence = f.dim() > 2
    kind = "empirical" if sequence else "jacobian"

    def inverse(dampings: list[float]) -> dict[str, Tensor]:
        return {b.name: torch.stack([1 / (n * (values[b.name] + g)) for g in dampings]) for b in blocks}

    cache: dict[float, Tensor] = {}
    subset = None if held_out is None else held_out.index[:2000]
    trimmed = (
        None
        if held_out is None or subset is None
        else HeldOut(subset, held_out.f[:2000], held_out.folds, held_out.seconds)
    )
    truth = _Labels(labels.model, None if labels.truth is None else labels.truth[:2000])

    def estimate(g: float) -> Tensor:
        assert subset is not None
        if not cache:
            scale = metric.trace().value / max(metric.effective_dimension(1e-12).value, 1.0)
            grid = [x * _decade(scale) for x in GRID]
            table = KroneckerLeverage(blocks, bases, inverse(grid), kind)
            run_pass(
                task,
                space,
                [table],
                index=subset,
                what="leave-one-out at every damping",
                batch=plan.batch,
                progress=progress,
            )
            done = table.finish()
            for d, x in enumerate(grid):
                if sequence:
                    loss = _total(law.nll(f[subset].double(), y[subset]))
                    cache[x] = first_order_losses(loss, done["parts"][:, d].sum(1))
                else:
                    cache[x] = loo_outputs(law, f[subset], y[subset], done["leverage"][:, d])
        return cache[g]

    theta = space.flat(task.model)
    damping = _choose_damping(task, settings, trimmed, truth, y, estimate, metric, theta, n)
    test_f, test_y = _test_outputs(task)
    qf, qy = (test_f, test_y) if test_f is not None and test_y is not None else (f, y)
    queries = _pick_queries(task, settings, qf, qy)

    def third() -> dict[str, Tensor]:
        gradients = QueryGradients(blocks)
        run_pass(task, space, [gradients], data=_query_data(task), index=queries, batch=min(8, plan.batch))
        formed = gradients.finish()
        flat = torch.cat([formed[b.name] for b in blocks], 1).double()
        solved = metric.solve(flat, damping.value) / n
        pre = {b.name: b.view(solved) for b in blocks}
        weights = {
            b.name: torch.stack([torch.ones_like(values[b.name]), 1 / (n * (values[b.name] + damping.value))])
            for b in blocks
        }
        table = KroneckerLeverage(blocks, bases, weights, kind)
        scores = KroneckerInfluence(blocks, pre)
        run_pass(task, space, [table, scores], what="leverage and influence", batch=plan.batch, progress=progress)
        return table.finish() | scores.finish()

    three = _stage(store, "leverage", third)
    parts = three["parts"][:, 1].double()
    base_loss = _total(law.nll(f.double(), y))
    if sequence:
        v, loo = None, None
        loo_loss = first_order_losses(base_loss, parts.sum(1))
        per_example = None
        mean_trace = (metric.trace().value, 0.0)
    else:
        v = three["leverage"][:, 1].double()
        loo = loo_outputs(law, f, y, v)
        loo_loss = law.nll(loo, y)
        root = law.fisher_root(f.double())
        per_example = torch.einsum("nck,ncd,ndk->n", root, three["leverage"][:, 0].double(), root)
        mean_trace = (float(per_example.mean()), 0.0)
    judge, label_f = _judge(labels.model, loo, held_out, y, task)
    measured = _fidelity(task, space, metric, plan, settings, mean_trace[0])
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
        layer_trace=_kronecker_layers(metric),
        trace=per_example,
        mean_trace=mean_trace,
        damping=damping,
        leverage=v,
        parts=parts,
        loo_f=loo,
        loo_loss=loo_loss,
        held_out=held_out,
        labels=judge,
        label_f=label_f,
        queries=queries,
        influence=three["influence"].t().double(),
        estimator="EKFAC, one Monte-Carlo label per example for factors and eigenvalues",
    )


def _kronecker_layers(metric: Kronecker) -> Callable[[SpectralFunction], Tensor]:
    return lambda fn: torch.stack([fn(b.values).sum() for b in metric.blocks])


def _fidelity(
    task: Task, space: ParameterSpace, metric: FisherMetric, plan: Plan, settings: Settings, trace: float
) -> Fidelity:
    generator = torch.Generator().manual_seed(settings.seed + 2)
    index = torch.randperm(plan.n, generator=generator)[:FIDELITY_EXAMPLES].sort().values
    operator = FisherOperator(task, space, index=index, batch=plan.batch)
    return fidelity(metric, exact_probe(operator, FIDELITY_PROBES, settings.seed + 3, Estimate(trace)))
