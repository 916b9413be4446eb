"""A page on one pruning: the method asked for next to the simple ones, on one axis."""

from __future__ import annotations

import datetime
from collections.abc import Sequence

import torch

from memspace.auditing.results import Chapter, Figure, Results, Series
from memspace.measurement import Measurement
from memspace.measures.compensated import Pruned, PruneSettings
from memspace.measures.efficiency import PruningCurve, accuracy_curve
from memspace.measures.pruning import prune
from memspace.measures.robustness import split
from memspace.passes.space import ParameterSpace
from memspace.progress import Progress
from memspace.task.task import Task
from memspace.version import VERSION

__all__ = ["SHARES", "comparison", "curve_series"]

SHARES = (0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3, 0.2, 0.1, 0.05, 0.02)


def curve_series(c: PruningCurve, classifies: bool) -> Series:
    """Accuracy (or loss) against share kept, with its 95% band."""
    value, ends = (c.accuracy, c.accuracy_ends) if classifies else (c.loss, c.loss_ends)
    return Series(c.method, c.kept.tolist(), value.tolist(), low=ends[:, 0].tolist(), high=ends[:, 1].tolist())


def comparison(
    task: Task,
    space: ParameterSpace,
    found: Sequence[Pruned],
    measurements: tuple[Measurement, ...],
    surgery: PruneSettings,
    progress: Progress,
) -> Results:
    """Results of one chapter: the networks ``found``, and magnitude and Fisher diagonal at shares around theirs."""
    data, word = split(task.test, task.train)
    least, classifies = min(p.share for p in found), task.likelihood.classifies
    shares = [s for s in SHARES if s > least] + [least]
    curves = {m: prune(task, space, m, shares, surgery=surgery) for m in ("magnitude", "fisher-diagonal")}
    curves[found[0].method] = list(found)
    theta, series = space.flat(task.model), []
    for method, networks in curves.items():
        kept = [1.0, *(p.share for p in networks)]
        flats = [theta, *(p.flat for p in networks)]
        c = accuracy_curve(task, space, flats, method, data=data, index=None, kept=kept, progress=progress)
        series.append(curve_series(c, classifies))
    what = "accuracy" if classifies else "loss (nats)"
    figure = Figure(
        "pruning",
        "What is left",
        f"{word.capitalize()} {what} against the share of weights kept, no retraining, 95% band.",
        "share of weights kept",
        what,
        tuple(series),
    )
    last = {m.name: m for m in measurements}
    key = "accuracy" if classifies else "loss"
    before, after = last[f"pruning.{key}_before"].value, last[f"pruning.{key}_after"].value
    answer = f"With {least:.1%} of the weights kept by {found[0].method}, {word} {key} goes from {before:.3g} to {after:.3g}."
    chapter = Chapter(
        "efficiency", "Pruning", "What is lost with the weights?", answer, measurements, figures=(figure,)
    )
    facts = {"model": type(task.model).__name__, "parameters": f"{space.size:,}", "torch": torch.__version__}
    settings = {"objective": surgery.objective, "Fisher rows": surgery.rows, "seed": surgery.seed}
    created = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    return Results(task.name, created, VERSION, facts | dict(task.description), settings, "", (chapter,))
