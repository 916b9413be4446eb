"""Our side of every work item, on the library's own passes; nothing here is faster than what a user can call."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import lru_cache

import torch
from torch import Tensor

from benchmarks.engine_outcome import Outcome, Work
from benchmarks.engine_workloads import Workload
from memspace.metric.ekfac import bases_of, kronecker_of
from memspace.metric.fisher import build
from memspace.metric.krylov import lanczos
from memspace.metric.row_products import gram as gram_of
from memspace.metric.spectral import Kronecker
from memspace.passes.collect import CollectRows
from memspace.passes.cotangent import View
from memspace.passes.engine import PassOptions, run_pass
from memspace.passes.leverage import KroneckerInfluence, KroneckerLeverage, QueryGradients
from memspace.passes.linearise import FisherOperator
from memspace.passes.statistic import Statistic
from memspace.passes.statistics import (
    Bases,
    CorrectedEigenvalues,
    DiagonalFisher,
    GradientNorms,
    KroneckerFactors,
)
from memspace.task.data import Data

__all__ = ["GRAM", "OURS", "TOP", "TOP_RESIDUAL", "Backward", "Fit", "damping", "fit", "fitted"]

GRAM = 1000  # examples of the Gram matrix
TOP = 20  # leading eigenvalues
TOP_RESIDUAL = 1e-2  # ‖F v − λ v‖/λ at which everyone stops; eigenvalues converge with its square over the gap
CHUNK = 64  # query gradients formed at a time


class Backward(Statistic[None]):
    """One forward and backward pass with nothing done to what it gives: the floor of a streamed item."""

    kinds = ("empirical",)

    def update(self, view: View) -> None:
        view.cotangents("empirical")

    def merge(self, other: Statistic[None]) -> None: ...

    def finish(self) -> None: ...

    def state(self) -> dict[str, Tensor]:
        return {}

    def restore(self, state: dict[str, Tensor]) -> None: ...


class Fit:
    """EKFAC of one kind: factors, bases, corrected eigenvalues, and the seconds of the eigendecompositions."""

    def __init__(self, w: Workload, kind: str) -> None:
        blocks = w.space.blocks
        factors = KroneckerFactors(blocks, kind)
        run_pass(w.task, w.space, [factors], PassOptions(seed=0))
        start = time.perf_counter()
        self.bases, _ = bases_of(factors.taken())
        self.apart = time.perf_counter() - start
        corrected = CorrectedEigenvalues(blocks, self.bases, kind)
        run_pass(w.task, w.space, [corrected], PassOptions(seed=1))
        sums = corrected.finish()
        self.values = {b.name: sums[f"eig/{b.name}"] / sums["n"] for b in blocks}
        self.metric: Kronecker = kronecker_of(blocks, self.bases, self.values, True, kind)


@lru_cache(maxsize=2)
def fitted(w: Workload, kind: str) -> Fit:
    """The factors that scores start from; fitted once, outside the timed part."""
    return Fit(w, kind)


def damping(w: Workload) -> float:
    """A tenth of the mean eigenvalue of the empirical EKFAC: the same number for everyone."""
    return 0.1 * fitted(w, "empirical").metric.trace().value / w.space.size


def norms(w: Workload) -> Work:
    def run() -> Outcome:
        table = GradientNorms(w.space.blocks, "empirical")
        run_pass(w.task, w.space, [table])
        return Outcome(table.finish()["norms"].sum(1))

    return run


def diagonal(kind: str):  # type: ignore[no-untyped-def]
    def prepare(w: Workload) -> Work:
        def run() -> Outcome:
            return Outcome(build(w.task, w.space, "diagonal", kind=kind).diagonal())

        return run

    return prepare


def kfac(kind: str):  # type: ignore[no-untyped-def]
    def prepare(w: Workload) -> Work:
        def run() -> Outcome:
            factors = KroneckerFactors(w.space.blocks, kind)
            run_pass(w.task, w.space, [factors])
            return Outcome({k: (f.a, f.g) for k, f in factors.factors().items()})

        return run

    return prepare


def ekfac(kind: str):  # type: ignore[no-untyped-def]
    def prepare(w: Workload) -> Work:
        def run() -> Outcome:
            done = fit(w, kind)
            return Outcome(done.values, done.apart)

        return run

    return prepare


def fit(w: Workload, kind: str) -> Fit:
    return Fit(w, kind)


def products(count: int):  # type: ignore[no-untyped-def]
    def prepare(w: Workload) -> Work:
        operator = FisherOperator(w.task, w.space)
        stack = w.vectors[:count]

        def run() -> Outcome:
            return Outcome(operator(stack[0]) if count == 1 else _stacked(operator)(stack))

        return run

    return prepare


def _stacked(operator: FisherOperator) -> Callable[[Tensor], Tensor]:
    """Products of a stack (k, P): by the operator itself where it takes stacks, else one by one."""
    if hasattr(operator, "_shape"):
        return operator
    return lambda v: torch.stack([operator(x) for x in v]) if v.dim() > 1 else operator(v)


def top(w: Workload) -> Work:
    def run() -> Outcome:
        metric = build(w.task, w.space, "implicit")
        if hasattr(metric, "eigh"):
            return Outcome(metric.eigh(TOP, tolerance=TOP_RESIDUAL).values[:TOP])
        operator = FisherOperator(w.task, w.space)
        start = torch.randn(w.space.size, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
        return Outcome(lanczos(operator, start, min(6 * TOP, w.space.size)).nodes.flip(0)[:TOP])

    return run


def self_statistic(w: Workload) -> KroneckerLeverage:
    done, g = fitted(w, "empirical"), damping(w)
    inverse = {k: (1 / (v + g)).unsqueeze(0) for k, v in done.values.items()}
    return KroneckerLeverage(w.space.blocks, done.bases, inverse, "empirical")


def self_influence(w: Workload) -> Work:
    """Columns by block, so that a peer that knows only some layers is compared on those."""
    fitted(w, "empirical")

    def run() -> Outcome:
        table = self_statistic(w)
        run_pass(w.task, w.space, [table])
        parts = table.finish()["parts"][:, 0]
        return Outcome({b.name: parts[:, i] for i, b in enumerate(w.space.blocks)})

    return run


def influence_statistic(w: Workload, names: frozenset[str] | None = None) -> KroneckerInfluence:
    """The queries' gradients, preconditioned; ``names``: only those blocks count."""
    done, g = fitted(w, "empirical"), damping(w)
    kept = [b for b in w.space.blocks if names is None or b.name in names]
    inverse = {b.name: 1 / (done.values[b.name] + g) for b in kept}
    queries = QueryGradients(kept, done.bases, inverse, len(w.queries[1]), w.n)
    run_pass(w.task, w.space, [queries], PassOptions(data=Data(w.queries), batch=CHUNK))
    columns, rotated = queries.finish(), {k: done.bases[k] for k in queries.rotated}
    return KroneckerInfluence(kept, columns, rotated)


def pairwise(w: Workload, names: frozenset[str] | None = None) -> Work:
    fitted(w, "empirical")

    def run() -> Outcome:
        scores = influence_statistic(w, names)
        run_pass(w.task, w.space, [scores])
        return Outcome(scores.finish()["influence"])

    return run


def prepared_queries(w: Workload) -> Work:
    fitted(w, "empirical")

    def run() -> Outcome:
        return Outcome(influence_statistic(w))

    return run


def scored(w: Workload) -> Work:
    """The part of the pairwise scores that grows with N: one pass with the contraction in it."""
    scores = influence_statistic(w)

    def run() -> Outcome:
        scores.restore({})  # the examples of the last repeat
        run_pass(w.task, w.space, [scores])
        return Outcome(None)

    return run


def gram(w: Workload) -> Work:
    index = torch.arange(min(GRAM, w.n))

    def run() -> Outcome:
        rows = CollectRows(w.space.blocks, "empirical", len(index))
        run_pass(w.task, w.space, [rows], PassOptions(index=index))
        return Outcome(gram_of(rows.finish()))

    return run


def backward(w: Workload) -> Work:
    def run() -> Outcome:
        run_pass(w.task, w.space, [Backward()])
        return Outcome(None)

    return run


def planned(w: Workload) -> Work:
    """Every streamed item in as few passes as their order allows, from scratch: one EKFAC serves all scores."""
    blocks, g = w.space.blocks, damping(w)

    def run() -> Outcome:
        factors = KroneckerFactors(blocks, "mc")
        first = [GradientNorms(blocks, "empirical"), DiagonalFisher(blocks, "mc"), factors]
        run_pass(w.task, w.space, first, PassOptions(seed=0))
        start = time.perf_counter()
        bases: dict[str, Bases] = bases_of(factors.taken())[0]
        apart = time.perf_counter() - start
        corrected = CorrectedEigenvalues(blocks, bases, "mc")
        run_pass(w.task, w.space, [corrected], PassOptions(seed=1))
        sums = corrected.finish()
        inverse = {b.name: 1 / (sums[f"eig/{b.name}"] / sums["n"] + g) for b in blocks}
        queries = QueryGradients(blocks, bases, inverse, len(w.queries[1]), w.n)
        run_pass(w.task, w.space, [queries], PassOptions(data=Data(w.queries), batch=CHUNK))
        columns, rotated = queries.finish(), {k: bases[k] for k in queries.rotated}
        weights = {k: v.unsqueeze(0) for k, v in inverse.items()}
        scores = [KroneckerLeverage(blocks, bases, weights, "empirical"), KroneckerInfluence(blocks, columns, rotated)]
        run_pass(w.task, w.space, scores)
        return Outcome(None, apart)

    return run


OURS = {
    "norms": norms,
    "diagonal-mc": diagonal("mc"),
    "diagonal-exact": diagonal("exact"),
    "kfac-mc": kfac("mc"),
    "kfac-exact": kfac("exact"),
    "ekfac-mc": ekfac("mc"),
    "ekfac-empirical": ekfac("empirical"),
    "product": products(1),
    "products-16": products(16),
    "self-influence": self_influence,
    "pairwise": pairwise,
    "gram": gram,
    "top-20": top,
}
