"""Geometry: the Fisher metric at the trained weights."""

from __future__ import annotations

import torch
from torch import Tensor

from memspace.auditing.chapter import ChapterDeclaration
from memspace.auditing.results import Figure, Finding, Series
from memspace.measures import spectrum as measures
from memspace.measures.spectrum import DirectionCounts, EstimatedSpectrum
from memspace.measures.values import Curvature
from memspace.metric.implicit import Density
from memspace.metric.metric import Fidelity
from memspace.passes.coverage import coverage
from memspace.passes.space import ParameterSpace
from memspace.task.task import Task

__all__ = ["GEOMETRY"]

DRAWN = 300  # points of the figure's line at most


def answer(space: ParameterSpace, directions: DirectionCounts) -> str:
    """Say how many directions carry the behaviour."""
    if directions.doubt:
        return f"The {space.size:,} directions in weight space were read from drawn rows: {directions.doubt}."
    summary = directions.summary
    return (
        f"Of {space.size:,} directions in weight space about {summary.effective_rank:,.0f} carry the network's "
        f"behaviour; {summary.flat:.0%} of the eigenvalues lie below a millionth of the largest."
    )


def stiffest_layer(space: ParameterSpace, curvature: Curvature) -> Finding | None:
    """Name the layer that holds most of the trace, where there are several."""
    if len(space.labels) < 2:
        return None
    traces = curvature.layer_trace(lambda x: x)
    share, name = float(traces.max() / traces.sum()), space.labels[int(traces.argmax())]
    return Finding(
        "note",
        f"{name} carries {share:.0%} of the sensitivity to noise",
        f"tr F of {name} is {float(traces.max()):.3g} of {float(traces.sum()):.3g} nats: equal noise on all weights.",
        "Check this layer first when fine-tuning moves predictions; robustness shows the cost of rounding by layer.",
        "geometry",
    )


def spectrum_figure(curvature: Curvature, directions: DirectionCounts, estimated: EstimatedSpectrum | None) -> Figure:
    """Draw the eigenvalues in order."""
    representation = curvature.metric.representation
    series = [_by_rank(directions.values, "exact" if representation == "dual" else representation)]
    if estimated is not None:
        series.append(_counted(estimated.density))
    return Figure(
        "spectrum",
        "Fisher spectrum",
        "Eigenvalues in order: how steeply sensitivity falls from the few stiff directions to the many flat ones.",
        "rank",
        "eigenvalue (nats)",
        tuple(series),
        "log",
        "log",
    )


def layer_figure(space: ParameterSpace, curvature: Curvature) -> Figure:
    """Draw each layer's part of the trace."""
    traces = curvature.layer_trace(lambda x: x).tolist()
    return Figure(
        "layers",
        "Where the sensitivity lies",
        "Each layer's part of tr F; the parts sum to the whole.",
        "layer",
        "tr F (nats)",
        (Series("tr F", space.labels, traces, "bar"),),
    )


def fidelity_note(curvature: Curvature) -> str | None:
    """Say how far the metric is from the exact one."""
    fidelity, name = curvature.fidelity, curvature.metric.representation
    if not isinstance(fidelity, Fidelity):
        return None
    return (
        f"{name} differs from the exact Fisher information by {fidelity.relative_error:.0%} in relative Frobenius "
        f"norm ({fidelity.probes} probes): read absolute values from the exact rows, and use {name} for rankings."
    )


def coverage_note(task: Task, space: ParameterSpace, curvature: Curvature) -> str | None:
    """Say which parameters were read in a slower or coarser way."""
    total = sum(p.numel() for p in task.model.parameters())
    covered = coverage(space, total, curvature.metric.representation)
    return f"Parameters read: {covered}." if covered.by_example or covered.diagonal else None


def _by_rank(values: Tensor, name: str) -> Series:
    """Eigenvalues at ranks evenly spaced in their logarithm."""
    positive = values[values > 0]
    if not len(positive):
        return Series(name, [], [])
    last = torch.log10(torch.tensor(float(len(positive))))
    ranks = torch.unique(torch.logspace(0, last, DRAWN).long().clamp(1, len(positive)))
    return Series(name, ranks.tolist(), positive[ranks - 1].tolist())


def _counted(density: Density) -> Series:
    """The count of eigenvalues above each level, with its spread over probes: the spectrum as rank against value."""
    nodes = torch.cat(list(density.nodes))
    levels = torch.unique(nodes[nodes > 1e-10 * nodes.max()]).flip(0)
    band = density.cumulative(levels)
    shown = [k for k, count in enumerate(band.count.tolist()) if count >= 0.5]
    text = [f"rank 95%: {band.low[k]:.3g} to {band.high[k]:.3g}" for k in shown]
    return Series(
        "stochastic Lanczos (exact F)", band.count[shown].tolist(), levels[shown].tolist(), "points", text=text
    )


GEOMETRY = ChapterDeclaration(
    id="geometry",
    title="Geometry",
    question="How does the output law react to each direction in weight space?",
    answer=answer,
    measures=(
        measures.trace,
        measures.largest_eigenvalue,
        measures.effective_rank,
        measures.participation_ratio,
        measures.flat_share,
        measures.parameter_count,
        measures.estimated_trace,
        measures.estimated_largest,
        measures.fidelity_error,
    ),
    tables=(measures.spectrum_table, measures.layer_table),
    findings=(stiffest_layer,),
    figures=(spectrum_figure, layer_figure),
    notes=(fidelity_note, coverage_note),
)
