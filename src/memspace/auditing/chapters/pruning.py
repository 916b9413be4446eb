"""A page on one pruning: the method asked for next to the simple ones, on one axis."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from memspace.auditing.chapter import ChapterDeclaration
from memspace.auditing.page import make_page
from memspace.auditing.results import Figure, Results, Series
from memspace.measures.compensated import Pruned, PruneSettings
from memspace.measures.efficiency import PruningCurve, accuracy_curve
from memspace.measures.pruned import PRUNED_MEASURES, PruningCost
from memspace.measures.pruning import prune
from memspace.measures.robustness import split
from memspace.measures.workspace import Measured, Workspace
from memspace.passes.space import ParameterSpace
from memspace.progress import Progress
from memspace.task.task import Task

__all__ = ["PRUNING", "SHARES", "PruningCurves", "curve_series", "pruning_curves", "pruning_results"]

SHARES = (0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3, 0.2, 0.1, 0.05, 0.02)
SIMPLE = ("magnitude", "fisher-diagonal")  # methods that every other is shown next to


@dataclass(frozen=True)
class PruningCurves:
    """Accuracy and loss by the share that remains, one curve per method.

    Args:
        curves: each on the same data.
    """

    curves: tuple[PruningCurve, ...]


def pruning_curves(
    task: Task, space: ParameterSpace, networks: Sequence[Pruned], surgery: PruneSettings, progress: Progress
) -> PruningCurves:
    """Judge the networks, and those of the simple methods at shares around theirs.

    Args:
        task: the network, its law and data.
        space: layout of the networks.
        networks: of one method, at one or several shares.
        surgery: settings of compensated pruning.
        progress: where the work reports.

    Returns:
        a curve for each method.
    """
    data, _ = split(task.test, task.train)
    least = min(p.share for p in networks)
    shares = [s for s in SHARES if s > least] + [least]
    by_method = {m: prune(task, space, m, shares, surgery=surgery) for m in SIMPLE}
    by_method[networks[0].method] = list(networks)
    theta, curves = space.flat(task.model), []
    for method, pruned in by_method.items():
        shares_kept = [1.0, *(p.share for p in pruned)]
        flats = [theta, *(p.flat for p in pruned)]
        curve = accuracy_curve(task, space, flats, method, data=data, index=None, kept=shares_kept, progress=progress)
        curves.append(curve)
    return PruningCurves(tuple(curves))


def curve_series(c: PruningCurve, classifies: bool) -> Series:
    """Draw accuracy (or loss) against share kept, with its 95% band.

    Args:
        c: the curve.
        classifies: whether the law has classes, so that there is an accuracy.

    Returns:
        the line.
    """
    value, ends = (c.accuracy, c.accuracy_ends) if classifies else (c.loss, c.loss_ends)
    return Series(c.method, c.kept.tolist(), value.tolist(), low=ends[:, 0].tolist(), high=ends[:, 1].tolist())


def answer(measured: Measured, cost: PruningCost) -> str:
    """Say what accuracy (or loss) was before, and what it is at the share kept."""
    key = "loss" if cost.right is None else "accuracy"
    before, after = (measured[f"pruning.{key}_{when}"].value for when in ("before", "after"))
    method = f"With {cost.pruned.share:.1%} of the weights kept by {cost.pruned.method}"
    return f"{method}, {cost.data} {key} goes from {before:.3g} to {after:.3g}."


def curves_figure(task: Task, cost: PruningCost, found: PruningCurves) -> Figure:
    """Draw what is left by every method."""
    classifies = task.likelihood.classifies
    what = "accuracy" if classifies else "loss (nats)"
    return Figure(
        "pruning",
        "What is left",
        f"{cost.data.capitalize()} {what} against the share of weights kept, no retraining, 95% band.",
        "share of weights kept",
        what,
        tuple(curve_series(c, classifies) for c in found.curves),
    )


PRUNING = ChapterDeclaration(
    id="pruning",
    title="Pruning",
    question="What is lost with the weights?",
    answer=answer,
    measures=PRUNED_MEASURES,
    figures=(curves_figure,),
)


def pruning_results(
    task: Task, space: ParameterSpace, cost: PruningCost, curves: PruningCurves, surgery: PruneSettings
) -> Results:
    """Put one pruning on a page.

    Args:
        task: the network, its law and data.
        space: layout of the networks.
        cost: what the pruned network costs.
        curves: of its method and of simple ones.
        surgery: settings of compensated pruning.

    Returns:
        one chapter.
    """
    facts = {"model": type(task.model).__name__, "parameters": f"{space.size:,}", "torch": torch.__version__}
    return make_page(
        task.name,
        (PRUNING,),
        Workspace({Task: task, PruningCost: cost, PruningCurves: curves}),
        facts=facts | dict(task.description),
        settings={"objective": surgery.objective, "Fisher rows": surgery.rows, "seed": surgery.seed},
    )
