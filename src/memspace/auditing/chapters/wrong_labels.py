"""Findings and figures on labels that look wrong: a part of the chapter on what is stored."""

from __future__ import annotations

import torch

from memspace.auditing.chapters.verdict import verdict
from memspace.auditing.claims import above
from memspace.auditing.pictures import class_name, item
from memspace.auditing.results import Figure, Finding, Gallery, Series
from memspace.auditing.thresholds import LIKELY
from memspace.intervals import of_share
from memspace.measures.judge import Judged
from memspace.measures.values import TrainingOutputs
from memspace.measures.workspace import Measured
from memspace.measures.wrong_labels import KnownWrong, WrongLabels
from memspace.task.task import Task

__all__ = ["calibration_figure", "suspicious_labels", "verdict_on_labels"]

SHOWN = 24
EDGES = (0.02, 0.1, 0.3, 0.5, 0.7, 0.9, 0.98)  # of the bins of probabilities whose calibration is drawn


def verdict_on_labels(labels: WrongLabels, measured: Measured) -> Finding | None:
    """Say whether labels are wrong: some, none, or unclear."""
    noise = measured.get("labels.noise")
    if noise is None:
        return None
    evidence = f"{noise.note[:1].upper()}{noise.note[1:]}."
    high = 1.0 if noise.interval is None else noise.interval[1]
    looks = f"{labels.likely:,} {'label is' if labels.likely == 1 else 'labels are'} more likely wrong than right"
    titles = (
        looks if labels.likely else "Some labels are wrong",
        "No label looks wrong",
        f"No sign of wrong labels, but up to {high:.0%} cannot be ruled out"
        if noise.reliable
        else "It is unclear whether labels are wrong",
    )
    claim = above("labels.noise", 0.0)
    return verdict(titles, "bad", evidence, column="p_wrong_label", share="labels.noise", claim=claim)


def suspicious_labels(task: Task, outputs: TrainingOutputs, labels: Judged) -> Gallery | None:
    """Show the labels that are more likely wrong than right."""
    p, suggested, truth = labels.p, labels.suggested, task.true_labels
    shown = [i for i in p.argsort(descending=True)[:SHOWN].tolist() if float(p[i]) > LIKELY]
    if not shown:
        return None
    items = []
    for i in shown:
        caption = f"{float(p[i]):.0%} wrong"
        if truth is not None:
            caption += f"; truly {class_name(task, truth[i])}"
        change = f"{class_name(task, outputs.y[i])} → {class_name(task, suggested[i])}"
        items.append(item(task, task.train, i, caption, change))
    return Gallery(
        "wrong-labels",
        "Labels that look wrong",
        "Most suspicious first, with the label the network would give without having seen the example.",
        tuple(items),
    )


def calibration_figure(known: KnownWrong) -> Figure:
    """Draw how often labels are truly wrong, among those given about the same probability."""
    p = known.labels.p
    bins = torch.bucketize(p, torch.tensor(EDGES, dtype=p.dtype, device=p.device))
    x, y, low, high, text = [], [], [], [], []
    for k in sorted(set(bins.tolist())):
        inside = bins == k
        count, wrong = int(inside.sum()), known.wrong[inside].double()
        ends = of_share(float(wrong.sum()), count).ends or (0.0, 1.0)
        x.append(float(p[inside].mean()))
        y.append(float(wrong.mean()))
        low.append(ends[0])
        high.append(ends[1])
        text.append(f"{count} examples")
    return Figure(
        "calibration",
        "Are these probabilities calibrated?",
        "Share of truly wrong labels among examples given about the same probability; the diagonal is perfect calibration.",
        "probability that the label is wrong",
        "truly wrong",
        (
            Series("this audit", x, y, "points", low=low, high=high, text=text),
            Series("perfect", [0, 1], [0, 1]),
        ),
    )
