"""Labels that look wrong, as one ranked list: probability, suggestion, and the examples the judgement rests on."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any

import torch
from torch import Tensor

from memspace.arguments import typed
from memspace.auditing.job import ReadingJob
from memspace.auditing.other_labels import COLUMNS, cannot_judge, ranked, sorted_rows
from memspace.auditing.plan import AuditSettings, Plan, make_plan
from memspace.auditing.quick import Quick, read_quick
from memspace.auditing.read import read
from memspace.auditing.reading import NO_REFITS
from memspace.auditing.results import Results
from memspace.display import Columns, Shown
from memspace.limits import COUNT, WHOLE
from memspace.measurement import Measurement
from memspace.measures.cross_fit import cross_fit, folds_of
from memspace.measures.declaration import measurement_of, register_units
from memspace.measures.held_out import refit_held_out
from memspace.measures.judge import Unseen, judge
from memspace.measures.values import HeldOut
from memspace.measures.wrong_labels import noise, noise_of
from memspace.passes.outputs import outputs
from memspace.passes.verify import verified_space
from memspace.progress import Progress, Silent
from memspace.task.checks import check_task, untouched
from memspace.task.data import Data
from memspace.task.task import Task
from memspace.value import Absent

__all__ = ["LabelIssues", "label_issues"]

NEIGHBOURS = 5


register_units({"for_suggested_influence": "nats", "for_label_influence": "nats"})


@dataclass(frozen=True, repr=False)
class LabelIssues(Shown):
    """Every training label, the likeliest wrong one first.

    Args:
        table: of classes: columns ``index``, ``label``, ``suggested_label``, ``p_wrong_label``, ``train_loss`` (nats)
            and, for the first ones, lists of training examples: ``for_suggested`` and ``for_label`` with
            ``..._influence``, the nats by which leaving that example out lowers (raises) log p(suggested) −
            log p(label). None elsewhere.
            Of several labels 0 or 1 in each example, a row for each label: ``output`` says which.
            Of numbers: ``value``, ``prediction`` without the example, ``standardised_residual`` (standard deviations
            of what is left without the example) and ``p_outlier``; ``output`` where there are several, the one
            furthest off.
        noise: estimated share of wrong labels, of examples with an outlier where labels are numbers.
        estimator: what the probabilities were made from.
        seconds: cost by step; ``refits`` are trainings.
    """

    table: dict[str, list[Any]]
    noise: Measurement
    estimator: str
    seconds: dict[str, float]

    def _title(self) -> str:
        return f"{len(self)} labels, the likeliest wrong one first, judged by {self.estimator}"

    def _quantities(self) -> tuple[Measurement]:
        return (self.noise,)

    def _tables(self) -> Mapping[str, Callable[[], Columns]]:
        return {"labels": lambda: self.table}

    def __len__(self) -> int:
        return len(self.table["index"])

    def save(self, path: Path | str, top: int | None = None) -> None:
        """Write the first rows as Parquet or CSV, by the ending of the name.

        Args:
            path: ends in ``.parquet`` or ``.csv``.
            top: rows; None: all.

        Raises:
            OutputError: the name ends otherwise, or the file cannot be written.
        """
        from memspace.auditing.table_file import save_table

        save_table(path, {k: v[:top] for k, v in self.table.items()})


@typed
def label_issues(
    source: Task | Results,
    *,
    settings: AuditSettings | None = None,
    folds: int | None = None,
    repeats: Annotated[int, COUNT] = 1,
    reasons: Annotated[int, WHOLE] = 50,
    progress: Progress | None = None,
) -> LabelIssues:
    """Judge every training label.

    p(label wrong | input, label) by Bayes' rule in the noise model of ``measures.labels``, fitted to predictors
    that did not see the label (see ``measures.judge``): the same that an audit says, at the same refits. Several labels
    0 or 1 are judged output by output; numbers by leave-one-out residuals (see ``measures.outliers``).

    Args:
        source: a task; or the results of an audit, whose own numbers are then ranked (without reasons).
        settings: seed, memory and damping.
        folds: parts of each partition in refits, at most as many as examples: K parts cost K − 1 trainings; 0: no
            refits; None: an audit's refits.
        repeats: partitions averaged over.
        reasons: for how many of the first examples neighbours in influence are found.
        progress: where long work reports.

    Returns:
        every label, the likeliest wrong one first.

    Raises:
        SettingsError: folds, repeats or reasons are out of range.
        TaskError: labels are neither one class, nor several 0 or 1, nor numbers, for each example.
    """
    if isinstance(source, Results):
        return _from_results(source)
    task, settings, progress = source, settings or AuditSettings(), progress or Silent()
    folds = None if folds is None else folds_of(folds, len(task.train))
    check_task(task)
    labels = task.train.labels()
    if labels.is_floating_point() or labels.dim() != 1 or not task.likelihood.has_classes:
        return LabelIssues(*_other(task, settings, folds, repeats, progress))
    begun = time.perf_counter()
    with untouched(task.model):
        space = verified_space(task)
        plan = make_plan(task, space, replace(settings, representation="ekfac"))
        if plan.first_order:
            raise cannot_judge(f"{plan.positions * plan.outputs:,} outputs per example are too many")
        refits = _refits(task, plan, folds, repeats, settings.seed, progress)
        at = time.perf_counter()
        quick = read_quick(task, space, plan, settings.seed, progress, settings.damping)
        y = quick.at.y
        damping = quick.at.choose(refits)
        loo = quick.at.leave_one_out(damping.value)
        unseen = Unseen(refits, loo, damping.reliable and refits is not None)
        judged = judge(task, quick.at.f, y, unseen, trajectory=_trajectory(task), seed=settings.seed)
        if judged is None:
            raise cannot_judge("each example has a label at several positions")
        p, suggested = judged.p, judged.suggested
        order = p.argsort(descending=True, stable=True)
        middle = time.perf_counter()
        columns = _reasons(task, quick, order[:reasons], suggested, damping.value, progress) if reasons else {}
    loss = task.likelihood.nll(quick.at.f.double(), quick.at.y)
    table = _table(order, quick.at.y, suggested, p, loss, columns)
    table["index"] = task.train.numbers(order.cpu()).tolist()
    seconds = {
        "refits": 0.0 if refits is None else refits.seconds,
        "leave-one-out": middle - at,
        "reasons": time.perf_counter() - middle,
        "total": time.perf_counter() - begun,
    }
    estimator = judged.estimator
    share = measurement_of(noise, noise_of(judged.model, estimator))
    return LabelIssues(table, share, estimator, seconds)


def _refits(task: Task, plan: Plan, folds: int | None, repeats: int, seed: int, progress: Progress) -> HeldOut | None:
    if folds is None and repeats == 1:
        return refit_held_out(task, plan.folds, plan.held_out, seed, progress)
    parts = max(2, plan.folds) if folds is None else folds
    return cross_fit(task, parts, repeats, seed, progress) if parts else None


def _other(
    task: Task, settings: AuditSettings, folds: int | None, repeats: int, progress: Progress
) -> tuple[dict[str, list[Any]], Measurement, str, dict[str, float]]:
    """As an audit reads it: numbers, and several labels in each example."""
    begun = time.perf_counter()
    with untouched(task.model):
        space = verified_space(task)
        plan = make_plan(task, space, settings)
        refits = _refits(task, plan, folds, repeats, settings.seed, progress) or NO_REFITS
        r = read(ReadingJob(task, space, plan, settings, None, progress), refits)
        table, share, estimator = ranked(r, r.workspace(settings, progress))
    seconds = {
        "refits": 0.0 if isinstance(r.held_out, Absent) else r.held_out.seconds,
        "total": time.perf_counter() - begun,
    }
    return table, share, estimator, seconds


def _trajectory(task: Task, most: int = 8) -> Tensor | None:
    """Mean output (n, C) over the recorded training, by steps: early networks have not yet learnt wrong labels."""
    run = task.run
    if run is None or len(run.states) < 4 or run.step[-1] == 0:
        return None
    marks = [(k + 1) * run.step[-1] / most for k in range(most)]
    nearest = {min(range(1, len(run.step)), key=lambda j: abs(run.step[j] - m)) for m in marks}
    chosen = sorted(nearest)
    middles = [(run.step[a] + run.step[b]) / 2 for a, b in pairwise(chosen)]
    edges = [0.0, *middles, float(run.step[-1])]
    total: Tensor | None = None
    for k, j in enumerate(chosen):
        f = outputs(task, task.train, state=run.states[j])[0].double() * ((edges[k + 1] - edges[k]) / run.step[-1])
        total = f if total is None else total + f
    return total


def _reasons(
    task: Task, quick: Quick, examples: Tensor, suggested: Tensor, damping: float, progress: Progress
) -> dict[str, list[Any]]:
    """For each example: who speaks for the suggested label and who for the observed one, itself apart."""
    x = task.train.batch(examples.cpu()).x
    suggestions, seen = Data((x, suggested[examples].cpu())), Data((x, quick.at.y[examples].cpu()))
    towards = quick.influence(suggestions, damping, progress, less=seen)
    towards[torch.arange(len(examples)), examples] = 0.0
    columns: dict[str, list[Any]] = {}
    for name, sign in (("for_suggested", 1.0), ("for_label", -1.0)):
        value, index = (sign * towards).topk(min(NEIGHBOURS, towards.shape[1]), 1)
        columns[name] = task.train.numbers(index.cpu()).tolist()
        columns[f"{name}_influence"] = value.tolist()
    return columns


def _table(
    order: Tensor, y: Tensor, suggested: Tensor, p: Tensor, loss: Tensor, columns: dict[str, list[Any]]
) -> dict[str, list[Any]]:
    table: dict[str, list[Any]] = {
        "index": order.tolist(),
        "label": y[order].tolist(),
        "suggested_label": suggested[order].tolist(),
        "p_wrong_label": p[order].tolist(),
        "train_loss": loss[order].tolist(),
    }
    return table | {k: [*v, *[None] * (len(order) - len(v))] for k, v in columns.items()}


def _from_results(results: Results) -> LabelIssues:
    examples = results.tables.get("examples", {})
    by = next((name for name in COLUMNS if name in examples), None)
    if by is None:
        raise cannot_judge("the audit judged no labels")
    share = results.measurement("labels.noise" if by == "p_wrong_label" else "outliers.share")
    return LabelIssues(sorted_rows(examples, by), share, share.estimator, {})
