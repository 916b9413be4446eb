"""Chapter 1: the Fisher metric at the trained weights."""

from __future__ import annotations

import torch

from memspace.attempt import attempt
from memspace.auditing.reading import Reading
from memspace.auditing.results import Chapter, Figure, Finding, Series
from memspace.measurement import Measurement, Unmeasured, from_error, from_samples
from memspace.measures.complexity import spectrum_summary
from memspace.measures.cost import Facts, Stage
from memspace.metric.dual import Dual
from memspace.metric.implicit import Density, spectral_density
from memspace.metric.metric import Fidelity
from memspace.metric.spectral import Kronecker
from memspace.metric.trust import FIDELITY, beyond
from memspace.passes.coverage import coverage
from memspace.passes.linearise import FisherOperator
from memspace.progress import Progress

__all__ = ["geometry"]

SLQ_EXAMPLES, SLQ_PROBES, SLQ_STEPS = 1000, 4, 32


def geometry(r: Reading, seed: int, progress: Progress) -> tuple[Chapter, dict[str, dict[str, object]]]:
    """The chapter, and the tables ``spectrum`` and ``layers``."""
    exact = r.metric.representation == "dual"
    values = r.metric.eigenvalues()
    summary = spectrum_summary(values, r.space.size)
    how, n = r.estimator, r.n
    drawn = _of_drawn_rows(r)
    measurements = [
        _trace(r),
        Measurement("fisher.largest_eigenvalue", summary.largest, "nats", how, n, None, "karakida2019"),
        Measurement(
            "fisher.effective_rank",
            summary.effective_rank,
            "1",
            f"exp(entropy of the spectrum); {how}",
            n,
            None,
            "roy2007",
            not drawn,
            drawn,
        ),
        Measurement(
            "fisher.participation_ratio", summary.participation, "1", f"(Σλ)²/Σλ²; {how}", n, None, "", not drawn, drawn
        ),
        Measurement(
            "fisher.flat_share",
            summary.flat,
            "1",
            f"share of directions below 1e-6 of the largest; {how}",
            n,
            None,
            "",
            not drawn,
            drawn,
        ),
        Measurement("parameters", float(r.space.size), "1", "count", 1),
    ]
    series = [_cumulative(values, "exact" if exact else r.metric.representation)]
    notes = []
    tables: dict[str, dict[str, object]] = {
        "spectrum": {
            "rank": list(range(1, min(len(values), 20_000) + 1)),
            "eigenvalue": values[:20_000].tolist(),
        }
    }
    unmeasured: list[Unmeasured] = []
    if not exact:
        found = attempt("fisher.spectrum.lanczos", lambda: _lanczos(r, seed, progress))
        if isinstance(found, Unmeasured):
            unmeasured.append(found)
        else:
            measurements += _of_density(*found)
            series.append(_density_series(found[0]))
        if isinstance(r.fidelity, Fidelity):
            measurements.append(_fidelity(r, r.fidelity))
            notes.append(
                f"{r.metric.representation} differs from the exact Fisher information by {r.fidelity.relative_error:.0%} "
                f"in relative Frobenius norm ({r.fidelity.probes} probes): read absolute values from the exact rows, and "
                f"use {r.metric.representation} for rankings."
            )
        elif r.fidelity is not None:
            unmeasured.append(r.fidelity)
    covered = coverage(r.space, sum(p.numel() for p in r.task.model.parameters()), r.metric.representation)
    if covered.generic or covered.diagonal:
        notes.append(f"Parameters read: {covered}.")
    per_layer = r.layer_trace(lambda x: x)
    names = r.space.labels
    sizes = [b.size for b in r.space.blocks]
    tables["layers"] = {"layer": names, "parameters": sizes, "fisher_trace": per_layer.tolist()}
    figures = (
        Figure(
            "spectrum",
            "Fisher spectrum",
            "Eigenvalues in order: how steeply sensitivity falls from the few stiff directions to the many flat ones.",
            "rank",
            "eigenvalue (nats)",
            tuple(series),
            "log",
            "log",
        ),
        Figure(
            "layers",
            "Where the sensitivity lies",
            "Each layer's part of tr F; the parts sum to the whole.",
            "layer",
            "tr F (nats)",
            (Series("tr F", names, per_layer.tolist(), "bar"),),
        ),
    )
    share = float(per_layer.max() / per_layer.sum())
    stiff = names[int(per_layer.argmax())]
    answer = (
        f"Of {r.space.size:,} directions in weight space about {summary.effective_rank:,.0f} carry the network's behaviour; "
        f"{summary.flat:.0%} of the eigenvalues lie below a millionth of the largest."
    )
    if drawn:
        answer = f"The {r.space.size:,} directions in weight space were read from drawn rows: {drawn}."
    findings = (
        Finding(
            "note",
            f"{stiff} carries {share:.0%} of the sensitivity to noise",
            f"tr F of {stiff} is {float(per_layer.max()):.3g} of {float(per_layer.sum()):.3g} nats: equal noise on all weights.",
            "Look here first when fine-tuning moves predictions; what rounding costs by layer is told under robustness.",
            "geometry",
        ),
    )
    return (
        Chapter(
            "geometry",
            "Geometry",
            "How does the output law react to each direction in weight space?",
            answer,
            tuple(measurements),
            tuple(unmeasured),
            findings,
            figures,
            (),
            tuple(notes),
        ),
        tables,
    )


def _of_density(density: Density, examples: int) -> list[Measurement]:
    trace = density.integrate(lambda x: x)
    top = max(float(x.max()) for x in density.nodes)
    how, source = f"stochastic Lanczos, {SLQ_PROBES} probes", "ubaru2017"
    steps = f"Lanczos, exact products, {SLQ_STEPS} steps"
    largest = "fisher.largest_eigenvalue.lanczos"
    return [
        Measurement("fisher.trace.lanczos", trace.value, "nats", how, examples, trace.interval, source),
        Measurement(largest, top, "nats", steps, examples, None, "golub2010"),
    ]


def _fidelity(r: Reading, f: Fidelity) -> Measurement:
    said = beyond(f.relative_error, FIDELITY, f"the relative error of {r.metric.representation}")
    how = f"‖(F̂−F)v‖/‖Fv‖ over {f.probes} probes, {r.metric.representation} against exact products"
    return from_error(
        "fisher.fidelity_error",
        f.relative_error,
        f.standard_error,
        "1",
        how,
        min(r.n, SLQ_EXAMPLES),
        df=f.probes - 1,
        lower=0.0,
        reliable=not said,
        note=said,
    )


def _of_drawn_rows(r: Reading) -> str:
    """Why counts of directions do not hold, where only some of the Jacobian's rows were drawn; else nothing."""
    if not isinstance(r.metric, Dual) or r.metric.chance is None:
        return ""
    return f"{len(r.metric.values):,} drawn rows span no more directions than that: more than these may be curved"


def _trace(r: Reading) -> Measurement:
    name, source = "fisher.trace", "amari1998, kunstner2019"
    if r.trace is not None:
        how, note = "mean over examples, exact", "interval: sampling of the examples"
        return from_samples(name, r.trace, "nats", how, lower=0.0, source=source, note=note)
    trace, error = r.mean_trace
    if not error > 0:
        return Measurement(name, trace, "nats", r.estimator, r.n, None, source, note="exact for these examples")
    several = isinstance(r.metric, Kronecker) and r.metric.sampling > 0
    drawn = "labels alone" if several else "examples and of one label for each"
    note = f"interval: sampling of the {drawn}"
    return from_error(name, trace, error, "nats", r.estimator, r.n, lower=0.0, source=source, note=note)


def _cumulative(values: torch.Tensor, name: str) -> Series:
    positive = values[values > 0]
    if not len(positive):
        return Series(name, [], [])
    ranks = torch.unique(
        torch.logspace(0, torch.log10(torch.tensor(float(len(positive)))), 300).long().clamp(1, len(positive))
    )
    return Series(name, ranks.tolist(), positive[ranks - 1].tolist())


def _lanczos(r: Reading, seed: int, progress: Progress) -> tuple[Density, int]:
    generator = torch.Generator().manual_seed(seed + 4)
    index = torch.randperm(r.n, generator=generator)[:SLQ_EXAMPLES].sort().values
    operator = FisherOperator(r.task, r.space, index=index)
    handle = progress.start("stochastic Lanczos spectrum", SLQ_PROBES * SLQ_STEPS)

    def product(v: torch.Tensor) -> torch.Tensor:
        out = operator(v)
        progress.advance(handle, len(v) if v.dim() > 1 else 1)
        return out

    try:
        return spectral_density(product, r.space.size, probes=SLQ_PROBES, steps=SLQ_STEPS, seed=seed + 5), len(index)
    finally:
        progress.finish(handle)


def _density_series(density: Density) -> Series:
    """The count of eigenvalues above each level, with its spread over probes: the spectrum as rank against value."""
    nodes = torch.cat(list(density.nodes))
    levels = torch.unique(nodes[nodes > 1e-10 * nodes.max()]).flip(0)
    band = density.cumulative(levels)
    keep = [k for k, c in enumerate(band.count.tolist()) if c >= 0.5]
    return Series(
        "stochastic Lanczos (exact F)",
        band.count[keep].tolist(),
        levels[keep].tolist(),
        "points",
        text=[f"rank 95%: {band.low[k]:.3g} to {band.high[k]:.3g}" for k in keep],
    )


def unmeasured_mean_field() -> Unmeasured:
    """Kept out of a trained network's audit: the mean-field law holds at initialisation only."""
    return Unmeasured(
        "fisher.mean_field",
        "the mean-field law holds at initialisation, not after training",
        "compare the recorded initialisation",
    )


def costs(facts: Facts) -> list[Stage]:
    """The spectrum by exact products, where the metric is EKFAC; the dual has its own."""
    if facts.dual:
        return []
    passes = facts.product(SLQ_EXAMPLES, SLQ_PROBES, SLQ_STEPS, proven=facts.n <= SLQ_EXAMPLES)
    return [Stage("spectrum", min(facts.n, SLQ_EXAMPLES), *passes, 0, "stochastic Lanczos, exact products")]
