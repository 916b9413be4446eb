"""Chapter 3c: what can be cut, measured by pruning a copy.

Compensated pruning reads a few hundred examples' rows and measures its objective on as many, so that it costs less than
one epoch whatever the data's size; where even that is dear, it is left out with the reason.
"""

from __future__ import annotations

import torch

from memspace.audit.reading import Reading
from memspace.audit.results import Chapter, Figure, Finding, Series
from memspace.errors import NonFiniteError
from memspace.measurement import Measurement, Unmeasured
from memspace.measures.compensated import Surgery
from memspace.measures.efficiency import PruningCurve, accuracy_curve, prunable, pruning_curve, smallest_share
from memspace.measures.filters import filtered_layers, prune_filters
from memspace.measures.pruning import prune
from memspace.progress import Progress
from memspace.task.data import Data

__all__ = ["efficiency"]

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
SOURCES = {"fisher": "LeCun et al. 1990", "fisher_inverse": "Hassibi & Stork 1993", "filters": "He et al. 2019"}


def _further(
    r: Reading, data: Data, index: torch.Tensor, progress: Progress
) -> tuple[list[PruningCurve], tuple[Unmeasured, ...]]:
    """The curves of compensated pruning, where affordable, and of filters, where there are convolutions."""
    task, theta, found = r.task, r.space.flat(r.task.model), {}
    absent: tuple[Unmeasured, ...] = ()
    if ROWS * r.space.size <= AFFORDABLE:
        surgery = Surgery(rows=ROWS, examples=EXAMPLES)
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
    if any(b.kind == "conv" for b in filtered_layers(r.space)):
        mask = prunable(r.space, task)
        found["filters by geometric median"] = prune_filters(task, r.space, mask, KEPT[1:])
    curves = []
    for name, networks in found.items():
        kept, flats = [1.0, *(p.share for p in networks)], [theta, *(p.flat for p in networks)]
        curves.append(accuracy_curve(task, r.space, flats, name, data=data, index=index, kept=kept, progress=progress))
    return curves, absent


def efficiency(r: Reading, progress: Progress) -> Chapter:
    """Accuracy against weights kept."""
    task = r.task
    data, word = (task.test, "test") if task.test is not None else (task.train, "training")
    index = torch.arange(min(len(data), 10_000))
    theta = r.space.flat(task.model)
    saliency = {"magnitude": theta.abs(), "Fisher (OBD)": 0.5 * r.diagonal.to(theta) * theta.square()}
    curves = [
        pruning_curve(task, r.space, s, name, data=data, index=index, kept=KEPT, progress=progress)
        for name, s in saliency.items()
    ]
    further, absent = _further(r, data, index, progress)
    curves += further
    measurements, series = [], []
    classifies = task.likelihood.classifies
    for c in curves:
        key = KEYS[c.method]
        value, error = (c.accuracy, c.accuracy_error) if classifies else (c.loss, c.loss_error)
        series.append(
            Series(
                c.method,
                c.kept.tolist(),
                value.tolist(),
                low=(value - 1.96 * error).tolist(),
                high=(value + 1.96 * error).tolist(),
            )
        )
        least = smallest_share(c)
        if least is not None:
            measurements.append(
                Measurement(
                    f"efficiency.{key}.smallest_share",
                    least,
                    "1",
                    f"smallest share of weights kept within 1% of the {word} accuracy, on a grid of {len(c.kept)}, no retraining",
                    c.n,
                    None,
                    SOURCES.get(key, ""),
                )
            )
        for share in (0.5, 0.2, 0.1):
            if share not in c.kept:
                continue
            k = c.kept.tolist().index(share)
            measurements.append(
                Measurement(
                    f"efficiency.{key}.{'accuracy' if classifies else 'loss'}_at_{int(100 * share)}",
                    float(value[k]),
                    "1" if classifies else "nats",
                    f"{word} data, pruned copy",
                    c.n,
                    (float(value[k] - 1.96 * error[k]), float(value[k] + 1.96 * error[k])),
                )
            )
    figure = Figure(
        "pruning",
        "What can be cut",
        f"{word.capitalize()} {'accuracy' if classifies else 'loss'} of a copy with the least salient weights set to zero, 95% band.",
        "share of weights kept",
        "accuracy" if classifies else "loss (nats)",
        tuple(series),
    )
    unmeasured: tuple[Unmeasured, ...] = absent
    findings: tuple[Finding, ...] = ()
    if classifies:
        shares = {c.method: smallest_share(c) or 1.0 for c in curves}
        best = min(shares, key=lambda k: shares[k])
        cut = 1 - shares[best]
        findings = (
            Finding(
                "good" if cut >= 0.3 else "note",
                f"{cut:.0%} of the weights can go",
                f"By {best}, without retraining, within 1% of the {word} accuracy ({', '.join(f'{k}: keep {v:.0%}' for k, v in shares.items())}).",
                f"Prune {cut:.0%} by {best}." if cut > 0 else "Do not prune without retraining.",
                "efficiency",
            ),
        )
        answer = f"{cut:.0%} of the weights can be set to zero at a cost below 1% {word} accuracy, chosen by {best}."
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
