"""How far each representation of each kind of Fisher is from exact products, and what it costs."""

from __future__ import annotations

import time
from typing import Any

import torch

from benchmarks.engine_table import EngineRow
from benchmarks.engine_workloads import Workload
from memspace.metric.fidelity import Probe, exact_probe, fidelity
from memspace.metric.fisher import build
from memspace.metric.metric import Estimate
from memspace.passes.linearise import FisherOperator

__all__ = ["fidelity_rows"]

PROBES, DUAL = 8, 300  # vectors; examples whose rows the dual keeps
KINDS: tuple[tuple[str, dict[str, Any]], ...] = (
    ("exact", {"kind": "exact"}),
    ("mc", {"kind": "mc"}),
    ("mc of 4 labels", {"kind": "mc", "samples": 4}),
    ("topk of 1% lost", {"kind": "topk", "lost": 0.01}),
    ("empirical", {"kind": "empirical"}),
)


def fidelity_rows(w: Workload) -> list[EngineRow]:
    """Relative Frobenius error of F̂ − F (estimated on Gaussian vectors) and tr F̂ / tr F, F exact on all N examples."""
    w.epoch()
    unit = sorted(w.epoch() for _ in range(3))[1]
    probe = _probe(w)
    rows = []
    for representation in ("diagonal", "kfac", "ekfac", "dual"):
        for name, options in KINDS:
            what = f"{representation}, {name}"
            from_jacobian = representation == "dual" and options["kind"] != "mc"
            if w.sequence and (from_jacobian or options["kind"] in ("exact", "topk")):
                rows.append(EngineRow(w.name, what, "memspace", detail="not run: positions × classes cotangents"))
                continue
            index = None
            if representation == "dual":
                generator = torch.Generator().manual_seed(0)
                index = torch.randperm(w.n, generator=generator)[: min(DUAL, w.n)].sort().values
            start = time.perf_counter()
            metric = build(w.task, w.space, representation, index=index, memory=12 * 2**30, **options)
            seconds = time.perf_counter() - start
            found = fidelity(metric, probe)
            print(f"{w.name} {what}: {found}", flush=True)
            detail = f"tr ratio {found.trace_ratio:.3f}; error ± {found.standard_error:.2g} over {found.probes} vectors"
            if index is not None:
                detail += f"; rows of {len(index)} examples"
            rows.append(
                EngineRow(
                    w.name,
                    what,
                    "memspace",
                    seconds,
                    0.0,
                    seconds / unit,
                    difference=found.relative_error,
                    detail=detail,
                )
            )
            del metric
    return rows


def _probe(w: Workload) -> Probe:
    """Exact products, and the exact trace: from the exact diagonal, for a sequence from the products themselves."""
    operator = FisherOperator(w.task, w.space)
    if w.sequence:
        probe = exact_probe(operator, PROBES, 5, Estimate(1.0))
        quotients = (probe.vectors * probe.products).sum(-1)
        trace = Estimate(float(quotients.mean()), float(quotients.std() / PROBES**0.5), PROBES)
    else:
        trace = build(w.task, w.space, "diagonal", kind="exact").trace()
        probe = exact_probe(operator, PROBES, 5, trace)
    return Probe(probe.vectors, probe.products, trace)
