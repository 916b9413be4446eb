"""Findings on real targets: whether the estimate of the explained variance was right, and which are outliers."""

from __future__ import annotations

from memspace.auditing.chapters.agreement import agreement
from memspace.auditing.chapters.verdict import verdict
from memspace.auditing.claims import Finding, above
from memspace.auditing.pictures import item
from memspace.auditing.results import Gallery
from memspace.auditing.thresholds import ESTIMATE_OFF, LIKELY, ONE_TARGET
from memspace.measures.explained import TargetSpread
from memspace.measures.targets import Targets
from memspace.measures.values import TestOutputs
from memspace.measures.workspace import Measured
from memspace.task.task import Task

__all__ = ["explained_against_test", "suspicious_targets", "verdict_on_targets"]

SHOWN = 24


def explained_against_test(task: Task, spread: TargetSpread, test: TestOutputs, measured: Measured) -> Finding | None:
    """Compare the explained variance estimated from training data with that of the test data."""
    inside, outside = measured.get("regression.r2_loo"), measured.get("regression.r2_test")
    if inside is None or outside is None:
        return None
    evidence = f"{inside.value:.0%} of the variance explained from training data alone, {outside.value:.0%} measured."
    close = ESTIMATE_OFF * float(spread.errors(task.likelihood.mean(test.f), test.y).mean())
    return agreement(measured.get("regression.loo_gap"), close, evidence)


def verdict_on_targets(targets: Targets, measured: Measured) -> Finding | None:
    """Say whether targets are outliers: some, none, or unclear."""
    share, expected = measured.get("outliers.share"), measured.get("outliers.expected")
    if share is None or expected is None:
        return None
    likely = int((targets.p > LIKELY).sum())
    word = "target looks like an outlier" if likely == 1 else "targets look like outliers"
    titles = f"{likely} {word}", "No target looks like an outlier", "It is unclear whether targets are outliers"
    evidence = f"Estimated share {share.value:.1%}, {expected.value:.1f} targets."
    claim = above(expected.name, ONE_TARGET)
    finding = verdict(titles, "warn", evidence, column="p_outlier", share=share.name, claim=claim)
    return finding if likely or finding.otherwise is None else finding.otherwise


def suspicious_targets(task: Task, targets: Targets) -> Gallery | None:
    """Show the targets that are more likely outliers than not."""
    p, z = targets.p, targets.z
    order = p.argsort(descending=True, stable=True)[:SHOWN].tolist()
    items = tuple(
        item(task, task.train, i, f"{float(p[i]):.0%} outlier", f"{float(z[i].abs().max()):.1f} σ")
        for i in order
        if float(p[i]) > LIKELY
    )
    if not items:
        return None
    return Gallery(
        "outliers", "Targets that look wrong", "Most suspicious first, judged without the example itself.", items
    )
