"""Efficiency: what can be cut."""

from __future__ import annotations

from memspace.auditing.chapter import ChapterDeclaration
from memspace.auditing.chapters.pruning import curve_series
from memspace.auditing.claims import below
from memspace.auditing.results import Figure, Finding
from memspace.auditing.thresholds import ACCURACY_COST, REMOVABLE
from memspace.measures.pruning_measures import (
    CURVE_MEASURES,
    ByFilters,
    ByFisher,
    ByFisherInverse,
    ByMagnitude,
    LeastShare,
    PruningJudge,
    every_curve,
    smallest_share,
)
from memspace.task.task import Task

__all__ = ["EFFICIENCY"]


def answer(least: LeastShare | None, judge: PruningJudge, magnitude: ByMagnitude) -> str:
    """Say what share of the weights can go, by which method."""
    if least is None:
        return "See how the loss rises as weights are set to zero."
    finding = removable(least, judge, magnitude)
    return f"{finding.title}. {finding.evidence}"


def removable(least: LeastShare, judge: PruningJudge, magnitude: ByMagnitude) -> Finding:
    """Say what share of the weights can go."""
    cut, method, word = 1 - least.needed.share, least.needed.method, judge.word
    if cut <= 0:
        return Finding(
            "note",
            "No weight can be removed with confidence",
            f"{magnitude.curve.n:,} {word} examples are too few to show that any cut on the grid costs less than "
            f"{ACCURACY_COST:.0%} accuracy.",
            "Measure a pruned copy on more examples, or retrain after pruning.",
            "efficiency",
        )
    return Finding(
        "good" if cut >= REMOVABLE else "note",
        f"{cut:.0%} of the weights can go",
        f"By {method}, without retraining, within {ACCURACY_COST:.0%} of the {word} accuracy, with 95% confidence over "
        f"{least.methods} methods and all shares.",
        f"Prune {cut:.0%} by {method}.",
        "efficiency",
        claims=(below("efficiency.smallest_share", 1.0),),
    )


def pruning_figure(
    task: Task,
    judge: PruningJudge,
    magnitude: ByMagnitude,
    fisher: ByFisher,
    inverse: ByFisherInverse | None,
    filters: ByFilters | None,
) -> Figure:
    """Draw accuracy (or loss) against the share of weights kept, by every method."""
    classifies = task.likelihood.classifies
    return Figure(
        "pruning",
        "What can be cut",
        f"{judge.word.capitalize()} {'accuracy' if classifies else 'loss'} of a copy with the least salient weights "
        "set to zero, 95% band.",
        "share of weights kept",
        "accuracy" if classifies else "loss (nats)",
        tuple(curve_series(c, classifies) for c in every_curve(magnitude, fisher, inverse, filters)),
    )


EFFICIENCY = ChapterDeclaration(
    id="efficiency",
    title="Efficiency",
    question="What can be cut?",
    answer=answer,
    measures=(smallest_share, *CURVE_MEASURES),
    findings=(removable,),
    figures=(pruning_figure,),
)
