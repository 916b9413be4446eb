"""One job of the field trial: draw, corrupt, train, audit as a stranger would, hold what is said against the truth."""

from __future__ import annotations

import dataclasses
import math
import time
import traceback
import warnings
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

import memspace
from benchmarks.field.corruption import corrupted
from benchmarks.field.exact import exact_leave_one_out
from benchmarks.field.networks import LAWS, NETWORKS, train
from benchmarks.field.rates import rate_records
from benchmarks.field.refits import Refits
from benchmarks.field.sources import SOURCES, Absent, Population
from benchmarks.field.tasks import Job
from benchmarks.field.truths import Draw, coverage, label_verdict, outlier_verdict
from memspace.auditing.results import Results

__all__ = ["run_job", "work"]

TEST, POOL = 120, 1200  # test examples handed to the audit; examples that tell the truth
LEAST = 8  # times the test examples: fewer leave the truth itself too uncertain to judge an interval


def work(job: Job, root: Path) -> dict[str, Any]:
    """:func:`run_job` in a process of its own, on one thread."""
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    return run_job(job, root)


def run_job(job: Job, root: Path) -> dict[str, Any]:
    """All records of one job, as plain JSON types; a failure is a record, too."""
    start = time.perf_counter()
    outcome: dict[str, Any] = {"job": dataclasses.asdict(job), "name": job.name, "condition": job.condition}
    try:
        outcome |= _measure(job, root)
    except Absent as absent:
        outcome["absent"] = str(absent)
    except Exception as error:
        outcome["failure"] = f"{type(error).__name__}: {error}"
        outcome["traceback"] = traceback.format_exc()
    outcome["seconds"] = time.perf_counter() - start
    return outcome


def _measure(job: Job, root: Path) -> dict[str, Any]:
    population = SOURCES[job.source](job.seed, root)
    draw = _draw(job, population)
    network = NETWORKS[job.network]
    law, outputs = population.law, population.outputs
    if job.rates:
        return {"law": law, "n": len(draw.x), "rates": rate_records(network, draw, law, outputs, job.seed)}
    model = train(network, draw.x, draw.y, law, outputs, job.seed)
    refits = Refits(network, draw.x, draw.y, law, outputs)
    results = _audit(job, model, draw, law, refits if job.refits != "none" else None, draw.test)
    outcome: dict[str, Any] = {"law": law, "n": len(draw.x), "refits": len(refits.made)}
    large = None
    if len(draw.pool[0]) >= LEAST * len(draw.test[0]):
        large = _audit(job, model, draw, law, None, draw.pool)
    outcome["coverage"] = coverage(results, large, draw, job, model)
    outcome["findings"] = [[c.id, f.level, f.title, f.evidence, f.action] for c in results.chapters for f in c.findings]
    if law == "categorical" and draw.y.dim() == 1:
        outcome["labels"] = label_verdict(results, model, refits, draw)
    if law == "gaussian" and job.noise:
        outcome["outliers"] = outlier_verdict(results, model, draw)
    outcome["estimate"] = _estimate(results, large, refits, draw, law, model)
    if job.network == "linear" and len(draw.x) <= 160 and law == "categorical":
        exact = exact_leave_one_out(network, model, draw, law)
        outcome["convex"] = {"exact": exact, "ours": _value(results, "generalisation.loo_estimate_as_given")}
    return outcome


def _draw(job: Job, population: Population) -> Draw:
    """Training, test and truth, apart; every class of the population has a training example where there is room."""
    generator = torch.Generator().manual_seed(job.seed)
    order = torch.randperm(len(population.x), generator=generator)
    n = min(job.n, int(0.7 * len(order)))
    m = min(TEST, max(1, (len(order) - n) // 2))
    at = order[:n], order[n : n + m], order[n + m : n + m + POOL]
    x, truth = population.x[at[0]], population.y[at[0]]
    y, wrong = corrupted(x, truth, population.law, population.outputs, job.noise, job.kind, job.seed)
    test, pool = ((population.x[k], population.y[k]) for k in at[1:])
    return Draw(x, y, truth, wrong, test, pool)


def _audit(
    job: Job, model: nn.Module, draw: Draw, law: str, refit: Refits | None, test: tuple[Tensor, Tensor]
) -> Results:
    decay = NETWORKS[job.network].recipe.decay
    fields: dict[str, Any] = {"name": job.name}
    if decay and law != "gaussian":  # in the loss that was minimised, where that is the law's own
        fields["decay"] = decay
    if refit is not None:
        fields["refit"] = refit
    settings: dict[str, Any] = {"seed": job.seed}
    if job.refits == "one" and "refits" in {f.name for f in dataclasses.fields(memspace.Settings)}:
        settings["refits"] = 1
    return memspace.audit(
        model,
        (draw.x, draw.y),
        test,
        likelihood=LAWS[law](),
        settings=memspace.Settings(**settings),
        **fields,
    )


def _value(results: Results, name: str) -> float | None:
    try:
        return results.measurement(name).value
    except KeyError:
        return None


def _estimate(
    results: Results, large: Results | None, refits: Refits, draw: Draw, law: str, model: nn.Module
) -> dict[str, Any]:
    """The expected test loss, ours and the refits' plain mean, beside the loss on the pool under the same law."""
    try:
        ours = results.measurement("generalisation.loo_estimate")
    except KeyError:
        return {}
    truth = None if large is None else _value(large, "generalisation.test_loss")
    held_out = refits.losses()
    plain = float(held_out.mean()) if len(held_out) and law != "gaussian" else None
    return {
        "ours": _finite(ours.value),
        "reliable": ours.reliable,
        "plain": plain,
        "truth": truth,
        "estimator": ours.estimator,
    }


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
