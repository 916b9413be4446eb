"""The Fisher spectrum at the trained weights: how sensitive the network is, and along how many directions."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from memspace.measurement import Unmeasured
from memspace.measures.cost import Facts, Stage
from memspace.measures.declaration import measure, provides, table
from memspace.measures.values import Budget, Curvature
from memspace.metric.dual import Dual
from memspace.metric.implicit import Density, spectral_density
from memspace.metric.spectral import Kronecker
from memspace.metric.trust import FIDELITY, beyond
from memspace.passes.linearise import FisherOperator
from memspace.passes.space import ParameterSpace
from memspace.task.task import Task
from memspace.value import Absent, Value

__all__ = ["DirectionCounts", "EstimatedSpectrum", "Spectrum", "spectrum_summary"]

EXAMPLES, PROBES, STEPS = 1000, 4, 32  # of stochastic Lanczos
TABLED = 20_000  # eigenvalues that are written into the table


@dataclass(frozen=True)
class Spectrum:
    """Summary of a set of eigenvalues.

    Args:
        largest: λ_max, nats.
        trace: sum, nats.
        effective_rank: exp of the entropy of λ/tr F.
        participation: (Σ λ)² / Σ λ².
        flat: share of the P directions below 1e-6 of the largest.
    """

    largest: float
    trace: float
    effective_rank: float
    participation: float
    flat: float


def spectrum_summary(values: Tensor, size: int) -> Spectrum:
    """Summarise the eigenvalues of F.

    Args:
        values: non-zero eigenvalues, nats.
        size: P; the other eigenvalues are zero.

    Returns:
        the summary.
    """
    v = values.double().clamp_min(0)
    total, top = float(v.sum()), float(v.max()) if len(v) else 0.0
    if total <= 0:
        return Spectrum(0.0, 0.0, 0.0, 0.0, 1.0)
    p = v / total
    entropy = -float((p * torch.log(p.clamp_min(1e-300))).sum())
    strong = int((v > 1e-6 * top).sum())
    # Shares: squares of the eigenvalues of a network that is very sure would underflow.
    return Spectrum(top, total, math.exp(entropy), 1 / float(p.square().sum()), 1 - strong / size)


@dataclass(frozen=True)
class DirectionCounts:
    """The metric's eigenvalues and what they count.

    Args:
        values: (R,) eigenvalues, descending, nats.
        summary: of them.
        doubt: why counts of directions do not hold, where only some of the Jacobian's rows were drawn; else empty.
    """

    values: Tensor
    summary: Spectrum
    doubt: str


@dataclass(frozen=True)
class EstimatedSpectrum:
    """The spectral density of the exact Fisher, estimated by stochastic Lanczos.

    Args:
        density: over eigenvalues.
        examples: it was estimated on.
    """

    density: Density
    examples: int


@provides()
def direction_counts(curvature: Curvature, space: ParameterSpace) -> DirectionCounts:
    """Compute the eigenvalues of the metric."""
    metric, doubt = curvature.metric, ""
    if isinstance(metric, Dual) and metric.chance is not None:
        rows = f"{len(metric.values):,} drawn rows"
        doubt = f"{rows} span no more directions than that: the curvature may have more"
    values = metric.eigenvalues()
    return DirectionCounts(values, spectrum_summary(values, space.size), doubt)


def _lanczos_cost(facts: Facts) -> Stage | None:
    if facts.dual:
        return None  # the dual has the spectrum itself
    forwards, backwards = facts.product(EXAMPLES, PROBES, STEPS, proven=facts.n <= EXAMPLES)
    why = "stochastic Lanczos, exact products"
    return Stage("spectrum", min(facts.n, EXAMPLES), forwards, backwards, 0, why)


@provides(cost=_lanczos_cost)
def estimated_spectrum(
    task: Task, space: ParameterSpace, curvature: Curvature, budget: Budget
) -> EstimatedSpectrum | Absent:
    """Estimate the spectrum of the exact Fisher from its products, where the metric is an approximation."""
    if curvature.metric.representation == "dual":
        return Absent()
    generator = torch.Generator().manual_seed(budget.seed + 4)
    index = torch.randperm(curvature.n, generator=generator)[:EXAMPLES].sort().values
    operator = FisherOperator(task, space, index=index)
    handle = budget.progress.start("stochastic Lanczos spectrum", PROBES * STEPS)

    def product(vectors: Tensor) -> Tensor:
        products = operator(vectors)
        budget.progress.advance(handle, len(vectors) if vectors.dim() > 1 else 1)
        return products

    try:
        density = spectral_density(product, space.size, probes=PROBES, steps=STEPS, seed=budget.seed + 5)
        return EstimatedSpectrum(density, len(index))
    finally:
        budget.progress.finish(handle)


@measure(
    "fisher.trace",
    chapter="geometry",
    unit="nats",
    estimator="tr F, mean over examples",
    source="amari1998, kunstner2019",
)
def trace(curvature: Curvature) -> Value:
    """How far the predictions move under equal noise on all weights."""
    if curvature.trace is not None:
        return Value.mean(curvature.trace, lower=0.0, how="exact", note="interval: sampling of the examples")
    mean, error = curvature.mean_trace
    if not error > 0:
        return Value(mean, curvature.n, how=curvature.estimator, note="exact for these examples")
    several_labels = isinstance(curvature.metric, Kronecker) and curvature.metric.sampling > 0
    drawn = "labels alone" if several_labels else "examples and of one label for each"
    note = f"interval: sampling of the {drawn}"
    return Value.with_error(mean, error, curvature.n, lower=0.0, how=curvature.estimator, note=note)


@measure(
    "fisher.largest_eigenvalue",
    chapter="geometry",
    unit="nats",
    estimator="largest eigenvalue",
    source="karakida2019",
)
def largest_eigenvalue(curvature: Curvature, directions: DirectionCounts) -> Value:
    """Sensitivity along the stiffest direction of the weights."""
    return Value(directions.summary.largest, curvature.n, how=curvature.estimator)


@measure(
    "fisher.effective_rank",
    chapter="geometry",
    unit="1",
    estimator="exp(entropy of the spectrum)",
    source="roy2007",
)
def effective_rank(curvature: Curvature, directions: DirectionCounts) -> Value:
    """How many directions carry the network's behaviour."""
    return _count(directions.summary.effective_rank, curvature, directions)


@measure("fisher.participation_ratio", chapter="geometry", unit="1", estimator="(Σλ)²/Σλ²")
def participation_ratio(curvature: Curvature, directions: DirectionCounts) -> Value:
    """How many directions carry the network's behaviour, weighing the stiff ones more."""
    return _count(directions.summary.participation, curvature, directions)


@measure(
    "fisher.flat_share",
    chapter="geometry",
    unit="1",
    estimator="share of directions below 1e-6 of the largest",
    shown="share",
)
def flat_share(curvature: Curvature, directions: DirectionCounts) -> Value:
    """Share of the directions along which hardly any prediction moves."""
    return _count(directions.summary.flat, curvature, directions)


def _count(value: float, curvature: Curvature, directions: DirectionCounts) -> Value:
    doubt = directions.doubt
    return Value(value, curvature.n, how=curvature.estimator, reliable=not doubt, note=doubt)


@measure("parameters", chapter="geometry", unit="1", estimator="count")
def parameter_count(space: ParameterSpace) -> Value:
    """How many parameters were read."""
    return Value(float(space.size), 1)


@measure(
    "fisher.trace.lanczos",
    chapter="geometry",
    unit="nats",
    estimator=f"stochastic Lanczos, {PROBES} probes",
    source="ubaru2017",
)
def estimated_trace(estimated: EstimatedSpectrum) -> Value:
    """Trace of the exact Fisher, to compare the approximation with."""
    trace = estimated.density.integrate(lambda x: x)
    return Value(trace.value, estimated.examples, trace.interval)


@measure(
    "fisher.largest_eigenvalue.lanczos",
    chapter="geometry",
    unit="nats",
    estimator=f"Lanczos, exact products, {STEPS} steps",
    source="golub2010",
)
def estimated_largest(estimated: EstimatedSpectrum) -> Value:
    """Largest eigenvalue of the exact Fisher, to compare the approximation with."""
    return Value(max(float(x.max()) for x in estimated.density.nodes), estimated.examples)


@measure(
    "fisher.fidelity_error",
    chapter="geometry",
    unit="1",
    estimator="‖(F̂−F)v‖/‖Fv‖ against exact products",
    better="smaller",
    shown="share",
)
def fidelity_error(curvature: Curvature) -> Value | Absent:
    """Relative distance of the approximate metric from the exact one."""
    fidelity, name = curvature.fidelity, curvature.metric.representation
    if fidelity is None:
        return Absent()
    if isinstance(fidelity, Unmeasured):
        return Absent(fidelity.reason, fidelity.remedy)
    doubt = beyond(fidelity.relative_error, FIDELITY, f"the relative error of {name}")
    return Value.with_error(
        fidelity.relative_error,
        fidelity.standard_error,
        min(curvature.n, EXAMPLES),
        df=fidelity.probes - 1,
        lower=0.0,
        reliable=not doubt,
        how=f"{name}, {fidelity.probes} probes",
        note=doubt,
    )


@table("spectrum", units={"eigenvalue": "nats"})
def spectrum_table(directions: DirectionCounts) -> dict[str, list[float]]:
    """Return the largest eigenvalues in order."""
    values = directions.values[:TABLED]
    return {"rank": list(range(1, len(values) + 1)), "eigenvalue": values.tolist()}


@table("layers", units={"fisher_trace": "nats"})
def layer_table(space: ParameterSpace, curvature: Curvature) -> dict[str, list[object]]:
    """Return each layer's size and its part of tr F."""
    sizes: list[object] = [b.size for b in space.blocks]
    traces = curvature.layer_trace(lambda x: x).tolist()
    return {"layer": list(space.labels), "parameters": sizes, "fisher_trace": traces}
