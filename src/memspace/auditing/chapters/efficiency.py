"""Chapter 3c: what can be cut, measured by pruning a copy.

Compensated pruning reads a few hundred examples' rows and measures its objective on as many, so that it costs less than
one epoch whatever the data's size; where even that is dear, it is left out with the reason.
"""

from __future__ import annotations

import math

import torch

from memspace.attempt import attempt
from memspace.auditing.chapters.pruning import curve_series
from memspace.auditing.claims import below
from memspace.auditing.reading import Reading
from memspace.auditing.results import Chapter, Figure, Finding
from memspace.auditing.thresholds import ACCURACY_COST, REMOVABLE
from memspace.errors import NonFiniteError
from memspace.measurement import Measurement, Unmeasured
from memspace.measures.compensated import CHANGE, CHOICE, PruneSettings, schedule
from memspace.measures.cost import EIGH, Facts, Stage
from memspace.measures.efficiency import Needed, PruningCurve, accuracy_curve, needed_share, prunable, pruning_curve
from memspace.measures.filters import filtered_layers, prune_filters
from memspace.measures.pruning import prune
from memspace.progress import Progress
from memspace.task.data import Data

__all__ = ["efficiency"]

JUDGED = 10_000  # examples a pruned copy is judged on, at most
KEPT = (1.0, 0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3, 0.2, 0.1, 0.05)

INVERSE = (1.0, 0.5, 0.2, 0.1, 0.05)  # shares of compensated pruning, a round or two each
ROWS, EXAMPLES = 300, 300  # Fisher rows a round, examples its objective is measured on
AFFORDABLE = 2e7  # rows × weights: beyond, a round costs seconds on a core
KEYS = {
    "magnitude": "magnitude",
    "Fisher (OBD)": "fisher",
    "Fisher inverse (OBS)": "fisher_inverse",
    "filters by geometric median": "filters",
}
SOURCES = {"fisher": "lecun1990", "fisher_inverse": "hassibi1993", "filters": "he2019"}


def _further(
    r: Reading, data: Data, index: torch.Tensor, progress: Progress
) -> tuple[list[PruningCurve], tuple[Unmeasured, ...]]:
    """The curves of compensated pruning, where affordable, and of filters, where there are convolutions."""
    task, theta, found = r.task, r.space.flat(r.task.model), {}
    absent: tuple[Unmeasured, ...] = ()
    if ROWS * r.space.size <= AFFORDABLE:
        surgery = PruneSettings(rows=ROWS, examples=EXAMPLES)
        try:
            found["Fisher inverse (OBS)"] = prune(task, r.space, "fisher-inverse", INVERSE[1:], surgery=surgery)
        except NonFiniteError:  # a weight divided by its own norm, for one
            absent = (
                Unmeasured(
                    "efficiency.fisher_inverse.smallest_share",
                    "with whole rows of weights at zero the network gives no finite outputs",
                    "remove the weights' parametrisation before pruning",
                ),
            )
    else:
        absent = (
            Unmeasured(
                "efficiency.fisher_inverse.smallest_share",
                f"{ROWS} Fisher rows of {r.space.size:,} weights would cost more than an audit should",
                "run `memspace prune TASK --method fisher-inverse`",
            ),
        )
    if any(b.rule.filters for b in filtered_layers(r.space)):
        mask = prunable(r.space, task)
        found["filters by geometric median"] = prune_filters(task, r.space, mask, KEPT[1:])
    curves = []
    for name, networks in found.items():
        kept, flats = [1.0, *(p.share for p in networks)], [theta, *(p.flat for p in networks)]
        curves.append(accuracy_curve(task, r.space, flats, name, data=data, index=index, kept=kept, progress=progress))
    return curves, absent


def _needed(name: str, found: Needed, over: str, n: int, word: str, source: str = "") -> Measurement:
    how = f"smallest share of weights kept that {n:,} {word} examples confirm to be within {ACCURACY_COST:.0%} of the accuracy"
    note = "" if found.share < 1 else f"{n:,} examples confirm no cut"
    ends = (found.low, found.share)
    return Measurement(name, found.share, "1", f"{how}; {over}, no retraining", n, ends, source, note=note)


def _of_curve(c: PruningCurve, word: str, classifies: bool, sequence: bool) -> list[Measurement]:
    """The share that one method needs, and accuracy (or loss) at three shares."""
    key, found = KEYS[c.method], []
    needed = needed_share([c], ACCURACY_COST)
    if needed is not None:
        name = f"efficiency.{key}.smallest_share"
        found.append(_needed(name, needed, f"a grid of {len(c.kept)}", c.n, word, SOURCES.get(key, "")))
    value, ends = (c.accuracy, c.accuracy_ends) if classifies else (c.loss, c.loss_ends)
    for share in (0.5, 0.2, 0.1):
        if share not in c.kept:
            continue
        k = c.kept.tolist().index(share)
        what, unit = ("accuracy", "1") if classifies else ("loss", "nats per position" if sequence else "nats")
        interval = (float(ends[k, 0]), float(ends[k, 1]))
        known = math.isfinite(sum(interval))
        found.append(
            Measurement(
                f"efficiency.{key}.{what}_at_{int(100 * share)}",
                float(value[k]),
                unit,
                f"{word} data, pruned copy",
                c.n,
                interval if known else None,
                reliable=known,
                note="" if known else "too few examples for an interval",
            )
        )
    return found


def _finding(needed: Needed, curves: list[PruningCurve], word: str) -> Finding:
    cut = 1 - needed.share
    if cut <= 0:
        return Finding(
            "note",
            "No weight can surely go",
            f"{curves[0].n:,} {word} examples are too few to show that any cut on the grid costs less than {ACCURACY_COST:.0%} accuracy.",
            "Measure a pruned copy on more examples, or retrain after pruning.",
            "efficiency",
        )
    several = len(curves)
    return Finding(
        "good" if cut >= REMOVABLE else "note",
        f"{cut:.0%} of the weights can go",
        f"By {needed.method}, without retraining, within {ACCURACY_COST:.0%} of the {word} accuracy, with 95% confidence over "
        f"{several} methods and all shares.",
        f"Prune {cut:.0%} by {needed.method}.",
        "efficiency",
        claims=(below("efficiency.smallest_share", 1.0),),
    )


def efficiency(r: Reading, progress: Progress) -> Chapter:
    """Accuracy against weights kept."""
    task = r.task
    data, word = (task.test, "test") if task.test is not None else (task.train, "training")
    index = torch.arange(min(len(data), JUDGED))
    theta = r.space.flat(task.model)
    saliency = {"magnitude": theta.abs(), "Fisher (OBD)": 0.5 * r.diagonal.to(theta) * theta.square()}
    curves = [
        pruning_curve(task, r.space, s, name, data=data, index=index, kept=KEPT, progress=progress)
        for name, s in saliency.items()
    ]
    found = attempt("efficiency.further", lambda: _further(r, data, index, progress))
    further, absent = ([], (found,)) if isinstance(found, Unmeasured) else found
    curves += further
    classifies = task.likelihood.classifies
    measurements = [m for c in curves for m in _of_curve(c, word, classifies, r.sequence)]
    figure = Figure(
        "pruning",
        "What can be cut",
        f"{word.capitalize()} {'accuracy' if classifies else 'loss'} of a copy with the least salient weights set to zero, 95% band.",
        "share of weights kept",
        "accuracy" if classifies else "loss (nats)",
        tuple(curve_series(c, classifies) for c in curves),
    )
    unmeasured: tuple[Unmeasured, ...] = absent
    findings: tuple[Finding, ...] = ()
    needed = needed_share(curves, ACCURACY_COST)
    if needed is not None:
        measurements.insert(
            0, _needed("efficiency.smallest_share", needed, f"{len(curves)} methods", curves[0].n, word)
        )
        findings = (_finding(needed, curves, word),)
        answer = f"{findings[0].title}. {findings[0].evidence}"
    else:
        unmeasured = (
            *absent,
            Unmeasured(
                "efficiency.smallest_share",
                "the output law has no classes, so no accuracy",
                "read the loss curve",
            ),
        )
        answer = "See how the loss rises as weights are set to zero."
    return Chapter(
        "efficiency",
        "Efficiency",
        "What can be cut?",
        answer,
        tuple(measurements),
        unmeasured,
        findings,
        (figure,),
    )


def costs(facts: Facts) -> list[Stage]:
    """Pruned copies judged, and compensated pruning where it is affordable."""
    m = min(facts.judged, JUDGED)
    stages = [Stage("pruning", m, 2 * len(KEPT), 0, 0, "accuracy against weights kept")]
    if facts.filters:
        stages.append(Stage("filters", m, len(KEPT), 0, 0, "accuracy against filters kept"))
    if ROWS * facts.parameters <= AFFORDABLE:
        rounds = len(schedule(INVERSE[1:], PruneSettings().step))
        tried = 1 + rounds * (1 + len(CHOICE) * len(CHANGE))
        e, r = min(facts.n, EXAMPLES), min(facts.n, ROWS)
        exact = facts.n * facts.outputs * facts.positions <= ROWS
        each = facts.outputs * facts.positions if exact else max(1, ROWS // facts.n)
        forwards, backwards = facts.read(each, facts.proofs(r, each))
        rows = r * each
        # A Gram matrix a round and a choice, and an inverse's diagonal a choice.
        work = 2 * rounds * ((1 + 3 * len(CHOICE)) * rows**2 * facts.parameters + (1 + len(CHOICE)) * EIGH * rows**3)
        why = "least change by the other weights"
        stages.append(Stage("compensated pruning", e, tried, rounds, 0, why, work=work))
        passes = rounds * forwards, rounds * backwards
        stages.append(Stage("its Fisher rows", r, *passes, 0, "the metric after each round"))
        stages.append(Stage("its networks", m, len(INVERSE), 0, 0, "accuracy against weights kept"))
    return stages
