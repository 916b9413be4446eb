"""The page on two networks: distance, barrier, layers, examples."""

from __future__ import annotations

import datetime
import time
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from memspace.action.lengths import distance_effect, distance_of, interval
from memspace.auditing.chapters.barrier import barrier_chapter, better_chapter
from memspace.auditing.compare import NetworkComparison
from memspace.auditing.pictures import item
from memspace.auditing.results import Chapter, Figure, Finding, Gallery, Results, Series
from memspace.geometry.geodesic import Geodesic, PathLength
from memspace.intervals import margin
from memspace.measurement import Measurement, Unmeasured, from_share
from memspace.task.task import Task
from memspace.version import VERSION

__all__ = ["comparison_results"]

SHOWN = 12  # examples drawn


def comparison_results(
    task: Task, found: NetworkComparison, names: tuple[str, str], settings: dict[str, Any]
) -> Results:
    """The comparison as a page's chapters and a table of examples; ``names``: what the two states are called."""
    began = time.perf_counter()
    examples, table = _examples(task, found)
    chapters = (_distance(found), better_chapter(found, names), barrier_chapter(found), _layers(found), examples)
    g = found.geodesic
    facts = {
        "model": type(task.model).__name__,
        "parameters": f"{g.probe.space.size:,}",
        "output law": task.likelihood.name,
        "training examples": f"{len(task.train):,}",
        "examples compared on": f"{g.probe.n:,}",
        "first network": names[0],
        "second network": names[1],
    }
    plan = f"string of {len(g.states)} networks from the {g.start}; lengths on {g.probe.n} training examples"
    costs = {"shortest path": g.seconds, "page": time.perf_counter() - began}
    created = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    return Results(
        f"{task.name}: {names[0]} and {names[1]}",
        created,
        VERSION,
        facts | dict(task.description),
        settings,
        plan,
        chapters,
        costs,
        {"examples": table},
    )


def _length(name: str, found: PathLength, what: str, n: int) -> Measurement:
    how = f"{what}, {len(found.squared) + 1} points, closed-form Fisher–Rao steps on {n} examples"
    note = f"the last halving of the step added {found.change:.2g}; a third of it is in the value, all in the interval"
    half = margin(found.error(), n - 1)
    bounds = max(0.0, found.measured - half), found.upper + half
    return Measurement(name, found.value, "nats^½", how, n, bounds, "rao1945", note=note)


def _of_ratio(value: float, above: PathLength, below: Tensor, by: float, less: float = 0.0) -> tuple[float, float]:
    """Interval of a path's length over another (``by``; its relative effect ``below``), less 1 or 0, never below 0."""
    ratio = value + less
    low, high = interval(value, above.effect().cpu() / by - ratio * below, max(0.0, above.change) / by)
    return min(value, max(0.0, low)), high


def _distance(found: NetworkComparison) -> Chapter:
    g, n = found.geodesic, found.geodesic.probe.n
    ends = g.probe.squared(g.points[[0, -1]]).detach()[0].cpu()
    measured = [
        distance_of("compare.lower_bound", ends, "closed form on the predictions"),
        _length("compare.length_found", g.length, f"string method from the {g.start} ({g.status})", n),
        _length("compare.straight_line_length", g.straight, "straight in the parameters", n),
    ]
    absent = []
    if g.given is not None:
        measured.append(
            _length("compare.path_length", g.given, "the path handed over, straight between its checkpoints", n)
        )
    if g.lower > 0:
        measured.append(
            Measurement(
                "compare.gap",
                g.gap,
                "1",
                "upper bound of the length found over the lower bound, less 1",
                n,
                _of_ratio(g.gap, g.length, distance_effect(ends) / g.lower, g.lower, 1.0),
                note="at most this share is left to gain",
            )
        )
    else:
        absent.append(Unmeasured("compare.gap", "the two networks predict the same", "compare networks that differ"))
    if g.straight.value > 0:
        by = g.straight.value
        bounds = _of_ratio(g.ratio, g.length, g.straight.effect().cpu() / by, by)
        how = "length found over the straight line's"
        measured.append(Measurement("compare.over_straight_line", g.ratio, "1", how, n, bounds))
    measured.append(
        Measurement(
            "compare.search_epochs",
            g.epochs,
            "epochs",
            f"forward and backward passes of {g.evaluations} evaluations of the energy",
            n,
        )
    )
    p, q = found.outputs
    law = g.probe.task.likelihood
    if law.classifies:
        same = (law.predict(p) != law.predict(q)).double()
        groups = torch.arange(len(same)).reshape(-1, *[1] * (same.dim() - 1)).expand(same.shape)
        counted = g.probe.weight.cpu() > 0
        counted = counted if counted.shape == same.shape else torch.ones_like(same, dtype=torch.bool)
        how = "share of predicted classes that differ"
        shared = groups[counted] if same.dim() > 1 else None  # the positions of a sequence are not independent
        share = from_share("compare.disagreement", same.cpu()[counted], how, groups=shared)
        measured.append(replace(share, shown="share"))
    findings = [_far(g)]
    bars = [("lower bound", g.lower), ("path found", g.length.value), ("straight line", g.straight.value)]
    if g.given is not None:
        bars.append(("path handed over", g.given.value))
    if found.matching is not None and found.unmatched is not None:
        m, before = found.matching, found.unmatched
        measured += [
            Measurement(
                "compare.units_moved",
                m.moved,
                "1",
                "weight matching by linear assignment",
                sum(map(len, m.permutations.values())),
                source="ainsworth2023",
            ),
            _length(
                "compare.straight_line_before_matching", before, "straight in the parameters, units as they were", n
            ),
        ]
        bars.append(("straight line before matching", before.value))
        times = before.value / g.straight.value if g.straight.value > 0 else 1.0
        findings.append(
            Finding(
                "note",
                f"Matching the hidden units made the straight line {times:.3g} times shorter",
                f"{before.value:.3g} before, {g.straight.value:.3g} nats^½ after; {m.moved:.0%} of the units changed place.",
                "Nothing to do.",
                "distance",
            )
        )
    figure = Figure(
        "bounds",
        "How far apart",
        "Nothing is shorter than the lower bound; each path is one that exists.",
        "",
        "nats^½",
        (Series("Fisher–Rao length", [k for k, _ in bars], [v for _, v in bars], "bar"),),
    )
    answer = f"At least {g.lower:.3g} and at most {g.length.upper:.3g} nats^½; the straight line takes {g.straight.value:.3g}."
    return Chapter(
        "distance",
        "Distance",
        "How far apart are the two networks?",
        answer,
        tuple(measured),
        tuple(absent),
        tuple(findings),
        (figure,),
    )


def _far(g: Geodesic) -> Finding:
    evidence = (
        f"Between {g.lower:.3g} and {g.length.upper:.3g} nats^½ (π is the most two laws over classes can differ)."
    )
    if g.straight.value > 1.25 * g.length.value:
        return Finding(
            "note",
            f"The straight line is {g.straight.value / g.length.value:.1f} times as long as the path found",
            evidence,
            "To walk from one to the other without disturbing predictions, follow the path and not the line.",
            "distance",
        )
    return Finding("good", "The straight line is nearly the shortest path", evidence, "Nothing to do.", "distance")


def _layers(found: NetworkComparison) -> Chapter:
    layers, n = found.layers, found.geodesic.probe.n
    total = float(layers.carried.sum())
    shares = (layers.carried / total).tolist() if total > 0 else [0.0] * len(layers.labels)
    measured = []
    for k, label in enumerate(layers.labels):
        how = f"exact metric at the middle of {len(found.geodesic.points) - 1} sides of the path found"
        measured.append(
            Measurement(
                f"layers.carried.{label}",
                float(layers.carried[k]),
                "nats^½",
                how,
                n,
                note="the layers' sum to the whole length",
            )
        )
        measured.append(
            Measurement(
                f"layers.alone.{label}", float(layers.alone[k]), "nats^½", how, n, note="if this layer alone had moved"
            )
        )
    names = list(layers.labels)
    figures = (
        Figure(
            "carried",
            "Length carried by each layer",
            "The parts sum to the path's length; a negative one undoes what others do.",
            "layer",
            "share",
            (Series("share of the length", names, shares, "bar"),),
        ),
        Figure(
            "alone",
            "Length if one layer alone had moved",
            "Together these exceed the path's length where layers move so that their effects cancel.",
            "layer",
            "nats^½",
            (Series("alone", names, layers.alone.tolist(), "bar"),),
        ),
    )
    most = max(range(len(names)), key=lambda k: shares[k])
    answer = f"{names[most]} carries most of the path: {shares[most]:.0%} of its length."
    return Chapter("layers", "Layers", "Which layers carry the distance?", answer, tuple(measured), (), (), figures)


def _examples(task: Task, found: NetworkComparison) -> tuple[Chapter, dict[str, Any]]:
    g = found.geodesic
    with torch.no_grad():
        apart = g.probe.squared(g.points[[0, -1]])[0].sqrt().cpu()
    travelled = g.length.squared.sqrt().sum(0).cpu()
    order = apart.argsort(descending=True)
    law, (p, q) = task.likelihood, found.outputs
    index = g.probe.index
    items = []
    for k in order[:SHOWN].tolist():
        flag = ""
        if law.classifies and p.dim() == 2:
            a, b = (_named(task, int(law.predict(f[k : k + 1]))) for f in (p, q)) if p.shape[-1] > 1 else ("", "")
            flag = f"{a} → {b}" if a != b else ""
        items.append(item(task, task.train, int(index[k]), f"moved {float(apart[k]):.3g}", flag))
    gallery = Gallery(
        "moved",
        "Predictions that differ most",
        "Fisher–Rao distance of the two networks' predictions, nats^½; predicted classes where they differ.",
        tuple(items),
    )
    ordered = apart.sort(descending=True).values
    share = float(ordered[: max(1, len(ordered) // 10)].square().sum() / ordered.square().sum().clamp_min(1e-300))
    figure = Figure(
        "moved",
        "How much each prediction moves",
        "Distance between the two predictions, and how far each travels along the path found.",
        "distance of the two predictions, nats^½",
        "travelled along the path, nats^½",
        (Series("example", apart.tolist(), travelled.tolist(), "points", text=[f"#{i}" for i in index.tolist()]),),
    )
    measured = (
        Measurement(
            "examples.top_tenth",
            share,
            "1",
            "share of the squared distance on the tenth of the examples that move most",
            len(apart),
        ),
    )
    answer = f"A tenth of the examples holds {share:.0%} of the squared distance."
    table = {"index": index.tolist(), "distance": apart.tolist(), "travelled": travelled.tolist()}
    return Chapter(
        "examples", "Examples", "Whose predictions differ most?", answer, measured, (), (), (figure,), (gallery,)
    ), table


def _named(task: Task, k: int) -> str:
    return task.class_names[k] if task.class_names is not None and k < len(task.class_names) else str(k)
