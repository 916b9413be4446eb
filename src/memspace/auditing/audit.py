"""The audit: check, plan, read, make each chapter, store what is done."""

from __future__ import annotations

import datetime
import resource
import time
from dataclasses import asdict, replace
from functools import partial
from typing import Any

import torch

from memspace.attempt import attempt
from memspace.attribution.question import queries_of
from memspace.auditing.chapter import ChapterDeclaration, declared_chapters, make_chapter
from memspace.auditing.claims import reviewed
from memspace.auditing.job import ReadingJob
from memspace.auditing.plan import AuditSettings, Plan, make_plan
from memspace.auditing.read import read
from memspace.auditing.reading import Reading
from memspace.auditing.results import Chapter, Results
from memspace.auditing.store import Store
from memspace.auditing.timing import estimated_seconds
from memspace.measurement import Unmeasured
from memspace.measures.values import HeldOut
from memspace.passes.agree import check_agreement
from memspace.passes.coverage import coverage
from memspace.passes.space import ParameterSpace
from memspace.passes.verify import checked_space
from memspace.progress import Progress, Silent
from memspace.task.checks import untouched
from memspace.task.fixed import fixed_parts
from memspace.task.task import Task
from memspace.value import Absent
from memspace.version import VERSION

__all__ = ["AuditSettings", "Plan", "audit_task", "plan_audit", "timed_plan"]

Tables = dict[str, dict[str, Any]]


def plan_audit(task: Task, settings: AuditSettings) -> Plan:
    """Check the task and plan its audit; computes nothing else.

    Args:
        task: the network and its data.
        settings: of the audit.

    Returns:
        the plan.

    Raises:
        MemspaceError: the task or the settings cannot be used; see ``memspace.errors``.
    """
    return _planned(task, settings)[1]


def timed_plan(task: Task, settings: AuditSettings) -> tuple[Plan, float]:
    """Plan an audit and estimate its duration.

    Args:
        task: the network and its data.
        settings: of the audit.

    Returns:
        the plan, and seconds within a factor of about two.

    Raises:
        MemspaceError: as :func:`plan_audit`.
    """
    with fixed_parts(task):
        space, plan = _planned(task, settings)
        return plan, estimated_seconds(task, space, plan)


def _planned(task: Task, settings: AuditSettings) -> tuple[ParameterSpace, Plan]:
    space = checked_space(task)
    queries_of(task, settings.queries)
    with untouched(task.model):
        return space, make_plan(task, space, settings)


def audit_task(
    task: Task, settings: AuditSettings, store: Store | None = None, progress: Progress | None = None
) -> Results:
    """Audit a task. The model is left bit for bit as it was, with hooks, modes and random state.

    Args:
        task: the network and its data.
        settings: of the audit.
        store: where finished stages and chapters are stored, so that an interrupted audit can resume.
        progress: where the passes report.

    Returns:
        the results.

    Raises:
        MemspaceError: see ``memspace.errors``; nothing already computed is lost.
    """
    progress = progress or Silent()
    start = time.perf_counter()
    check_agreement(task, asdict(settings))
    space = checked_space(task)
    queries_of(task, settings.queries)
    with untouched(task.model):
        plan = make_plan(task, space, settings)
        r, chapters, tables, costs = _read(task, space, plan, settings, store, progress)
    measured = {m.name: m for c in chapters for m in c.measurements}
    # Chapters are stored as written, and reviewed together: a later one may refute a finding.
    chapters = tuple(replace(c, findings=reviewed(c.findings, measured)) for c in chapters)
    for c in chapters:
        costs[c.id] = c.seconds
    costs["total"] = time.perf_counter() - start
    costs["peak memory (MiB)"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    created = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    return Results(
        task.name,
        created,
        VERSION,
        _facts(task, r, plan),
        _settings(settings, r),
        plan.text(),
        chapters,
        costs,
        tables,
    )


def _read(
    task: Task, space: ParameterSpace, plan: Plan, settings: AuditSettings, store: Store | None, progress: Progress
) -> tuple[Reading, tuple[Chapter, ...], Tables, dict[str, float]]:
    """The reading, the chapters and their tables, and seconds; all again where a pass refutes earlier ones.

    A pass that refutes the gradients of some modules starts again by itself. Earlier passes may have read these modules
    wrongly, in batches that were not proven; so may an interrupted run. Then everything is computed again. This is
    rare, and the second time is right. Refits are kept: they do not depend on how this network is read.
    """
    refits: HeldOut | Absent | None = None
    if store is not None:
        _go_on(space, store)
    while True:
        start, space.late = time.perf_counter(), False
        r = read(ReadingJob(task, space, plan, settings, store, progress), refits)
        costs = {"reading": time.perf_counter() - start}
        if not isinstance(r.held_out, Absent):
            costs["held-out refits"] = r.held_out.seconds
        chapters, tables = _chapters(r, settings, store, progress)
        if not space.late:
            return r, chapters, tables, costs
        space.finished, refits = 0, r.held_out
        if store is not None:
            store.drop_readings()


def _go_on(space: ParameterSpace, store: Store) -> None:
    """Read every module as the interrupted run did last, and store for the next run how this one does."""
    known = store.load_ways()
    if known is not None:
        space.refuted |= {b.module for b in space.blocks} & set(map(str, known["refuted"]))
        space.manner = max(space.manner, known["manner"])
        space.finished += 1  # stored stages were read by passes that one of this run may refute
    store.ways = lambda: {"refuted": sorted(space.refuted), "manner": space.manner}


def _chapters(
    r: Reading, settings: AuditSettings, store: Store | None, progress: Progress
) -> tuple[tuple[Chapter, ...], Tables]:
    tables: Tables = {}
    workspace = r.workspace(settings, progress)
    chapters = []
    declared = declared_chapters()
    handle = progress.start("chapters", len(declared))
    for one in declared:
        if store is not None and store.has_chapter(one.id):
            chapter, stored = store.load_chapter(one.id)
            tables.update(stored)
        else:
            # A failure leaves the other chapters as they are.
            made = attempt(one.id, partial(make_chapter, one, workspace))
            chapter, columns = (_absent(one, made), {}) if isinstance(made, Unmeasured) else made
            for name in columns:
                tables.setdefault(name, {}).update(columns[name])
            if store is not None:
                store.save_chapter(chapter, tables)
        chapters.append(chapter)
        progress.advance(handle)
    progress.finish(handle)
    return tuple(chapters), tables


def _absent(declared: ChapterDeclaration, why: Unmeasured) -> Chapter:
    return Chapter(declared.id, declared.title, declared.question, f"Not measured: {why.reason}.", (), (why,))


def _facts(task: Task, r: Reading, plan: Plan) -> dict[str, str]:
    facts = {
        "model": type(task.model).__name__,
        "parameters": plan.counted,
        "output law": task.likelihood.name,
        "training examples": f"{plan.n:,}",
        "test examples": f"{len(task.test):,}" if task.test is not None else "none given",
        "outputs": str(plan.outputs) + (f" at {plan.positions} positions" if plan.positions > 1 else ""),
        "metric": r.curvature.estimator,
        "parameters read": str(coverage(r.space, plan.total, plan.representation)),
        "device": f"{task.device}, {str(task.dtype).removeprefix('torch.')}",
        "torch": torch.__version__,
    }
    rounded = _rounding(task.device)
    if rounded:
        facts["arithmetic"] = rounded
    if plan.patterns:
        facts["parameters chosen by"] = ", ".join(plan.patterns) + "; the others stay fixed"
    return facts | dict(task.description)


def _rounding(device: torch.device) -> str:
    """What torch is set to: less than float32 where allowed, determinism where asked for. Nothing is set here."""
    modes = []
    if torch.get_float32_matmul_precision() != "highest":
        modes.append(f"float32 matrix products at precision {torch.get_float32_matmul_precision()!r}")
    if device.type == "cuda" and torch.backends.cudnn.allow_tf32:
        modes.append("convolutions in TF32")
    if torch.are_deterministic_algorithms_enabled():
        modes.append("deterministic algorithms")
    return ", ".join(modes)


def _settings(settings: AuditSettings, r: Reading) -> dict[str, Any]:
    return {
        "damping": settings.damping if settings.damping is not None else f"{r.damping.value:.6g} ({r.damping.rule})",
        "memory": f"{settings.memory / 2**30:g} GiB",
        "seed": settings.seed,
        "representation": settings.representation,
        "queries": ", ".join(map(str, r.queries.queries.tolist())),
    }
