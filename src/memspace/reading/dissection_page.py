"""A dissection as measurements, tables, figures and galleries of the examples that activate detectors most."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import interpolate

from memspace.auditing.pictures import item
from memspace.auditing.results import Chapter, Figure, Gallery, Item, Series
from memspace.measurement import Measurement, stated
from memspace.measures.scores.repeated import one_more
from memspace.reading.detectors import CHANCE, RotatedBasis
from memspace.reading.dissection import Dissection
from memspace.reading.unit_signals import read_units
from memspace.task.task import Task
from memspace.value import Value

__all__ = ["dissection_chapter", "dissection_measurements", "dissection_tables", "highlighted"]

GALLERIES = 6  # detectors shown
SHOWN = 8  # examples of each
BARS = 12  # concepts of a figure
BRIGHT = 0.95  # quantile of a unit's activations above which a picture is left bright, where there is no threshold
WASHED = 0.35  # grey that black becomes where a unit is not active, and half that white becomes
BAU = "bau2020"


def dissection_measurements(read: Dissection) -> tuple[Measurement, ...]:
    """Give detectors, concepts that have one and mean score, each next to its nulls; then what ablation costs.

    Args:
        read: the dissection.

    Returns:
        in this order.
    """
    d, basis, n = read.detectors, read.detectors.basis, read.detectors.n
    rule = f"{read.score.name} of {d.least:g} or more on the other half, and beyond shuffled concepts (5%, all units)"
    shuffled = basis.shuffled.astype(np.float64)
    ends = float(np.quantile(shuffled, 0.025)), float(np.quantile(shuffled, 0.975))
    made = [
        stated("dissect.units", Value(len(d.units), n), "1", f"units that vary, of {read.place.units}"),
        stated(
            "dissect.above_chance",
            Value(int((basis.chance <= CHANCE).sum()), n, None, "a count of tests"),
            "1",
            f"units whose {read.score.name} is beyond shuffled concepts (5%, all units), however small",
            "westfall1993",
        ),
        stated(
            "dissect.detectors",
            Value(basis.count, n, d.between, "interval: all units at once"),
            "1",
            f"units with {rule}",
            read.score.source or BAU,
        ),
        stated(
            "dissect.detectors.shuffled",
            Value(float(shuffled.mean()), n, ends, f"{len(shuffled)} shuffles; interval: 95% of single ones"),
            "1",
            "the same where concepts are shuffled between examples",
            "westfall1993",
        ),
        stated(
            "dissect.concepts",
            Value(basis.distinct, n, d.distinct_between, "interval: all units at once"),
            "1",
            f"concepts with a detector, of {len(read.table.names)}",
            read.score.source or BAU,
        ),
        stated(
            "dissect.score",
            Value.with_error(float(basis.score.mean()), d.mean_error, n, lower=0.0, upper=1.0),
            "1",
            f"mean over units of {read.score.estimator}",
            read.score.source,
        ),
    ]
    if read.rotated is not None:
        made += _rotated(read.rotated, basis.count, n)
    a = read.ablation
    if a is not None:
        rows: list[tuple[str, Value | None, str]] = [
            ("with", a.present, "without its detectors, on examples with the concept"),
            ("without", a.absent, "the same on examples without the concept"),
            ("specific", a.specific, "with less without"),
            ("control", a.control, "on examples with the concept, without as many random other units"),
            ("beyond_control", a.beyond, "with less control"),
        ]
        words = f"loss of {a.what}, mean over {len(a.rows)} concepts, units chosen on the other half: "
        made += [stated(f"dissect.ablation.{k}", v, a.unit, words + how, BAU) for k, v, how in rows if v is not None]
    return tuple(made)


def _rotated(rotated: RotatedBasis, count: int, n: int) -> list[Measurement]:
    """The counts of random rotations, and how often they reach that of the units."""
    turns = len(rotated.counts)
    made = []
    for name, values, upper, what in (
        ("detectors", rotated.counts, math.inf, "detectors"),
        ("concepts", rotated.distinct, math.inf, "concepts with a detector"),
        ("score", rotated.means, 1.0, "mean score"),
    ):
        ends = one_more(values, 0.0, upper) if turns > 1 else None
        note = "" if ends is not None else "one rotation shows no spread"
        how = f"mean of {turns} rotations; interval: 95% of single ones"
        value = Value(float(values.mean()), n, ends, how, ends is not None, note)
        made.append(stated(f"dissect.{name}.rotated", value, "1", f"{what} after random rotations of the units", BAU))
    reached = int((rotated.counts >= count).sum())
    share = Value((1 + reached) / (1 + turns), turns, None, "no interval: it is a probability")
    how = "chance of so many detectors if no axis is special: (1 + rotations that reach it)/(1 + rotations)"
    return [*made, stated("dissect.detectors.chance", share, "1", how)]


def dissection_tables(read: Dissection) -> dict[str, dict[str, list[Any]]]:
    """Give a row a unit, a concept and an ablation.

    Args:
        read: the dissection.

    Returns:
        name → {column: values}.
    """
    d, basis, names = read.detectors, read.detectors.basis, read.table.names
    concept = basis.chosen.concept
    some = read.table.has.flatten(2).any(2) if read.table.shape else read.table.has
    of = [int((concept[basis.detects] == k).sum()) for k in range(len(names))]
    turned = read.rotated.concepts.mean(0).tolist() if read.rotated is not None else [math.nan] * len(names)
    out = list(read.left_out)
    units = {
        "unit": d.units.tolist(),
        "concept": [names[k] for k in concept],
        "score": basis.score.tolist(),
        "low": d.low.tolist(),
        "high": d.high.tolist(),
        "detector": basis.detects.tolist(),
        "chance": basis.chance.tolist(),
        "level": basis.chosen.level.tolist(),
        "same_concept": d.again.tolist(),
    }
    concepts = {
        "concept": [*names, *out],
        "examples": [*some.sum(0).tolist(), *[math.nan] * len(out)],
        "detectors": [*of, *[math.nan] * len(out)],
        "rotated": [*turned, *[math.nan] * len(out)],
        "left_out": [*[""] * len(names), *read.left_out.values()],
    }
    ablation: dict[str, list[Any]] = {"concept": [], "units": []}
    for row in read.ablation.rows if read.ablation is not None else ():
        ablation["concept"].append(row.concept)
        ablation["units"].append(" ".join(map(str, row.units)))
        for name, value in (("with", row.present), ("without", row.absent), ("control", row.control)):
            ends = (math.nan, math.nan) if value is None or value.interval is None else value.interval
            number = math.nan if value is None else value.value
            for column, v in ((name, number), (f"{name}_low", ends[0]), (f"{name}_high", ends[1])):
                ablation.setdefault(column, []).append(v)
    return {"units": units, "concepts": concepts, "ablation": ablation}


def dissection_chapter(task: Task, read: Dissection, seconds: float) -> Chapter:
    """Make the chapter: answer, numbers, figures and galleries.

    Args:
        task: the network.
        read: the dissection.
        seconds: it took.

    Returns:
        the chapter.
    """
    chosen = len(read.halves.choosing)
    notes = [f"Read on {read.words}. Concepts are chosen on {chosen} examples and judged on the others."]
    if read.left_out:
        first = ", ".join(f"{name} ({why})" for name, why in list(read.left_out.items())[:3])
        notes.append(f"Concepts left out: {len(read.left_out)}, for example {first}.")
    figures = [_score_figure(read), _concept_figure(read)]
    if read.ablation is not None:
        figures.append(_ablation_figure(read))
    return Chapter(
        "dissect",
        "Units that detect concepts",
        "Do single units stand for concepts, and does the network use them?",
        _answer(read),
        dissection_measurements(read),
        read.unmeasured,
        figures=tuple(figures),
        galleries=tuple(_gallery(task, read, u) for u in _best(read)),
        notes=tuple(notes),
        seconds=seconds,
    )


def _answer(read: Dissection) -> str:
    """Say how many units detect, how many directions do, and what ablation costs."""
    basis, units = read.detectors.basis, len(read.detectors.units)
    text = f"{basis.count} of {units} units of {read.place.words} detect a concept, {basis.distinct} concepts in all"
    if read.rotated is not None:
        text += f"; after random rotations {read.rotated.counts.mean():.3g} directions do"
    if read.ablation is not None:
        a = read.ablation
        text += f". Without its detectors a concept's examples lose {a.present.value:.2g} of {a.what}"
        text += "" if a.absent is None else f", other examples {a.absent.value:.2g}"
        if a.control is not None:
            text += f", and {a.control.value:.2g} is lost with as many other units"
        if a.unit == "nats":
            text += " (nats)"
    return f"{text}."


def _score_figure(read: Dissection) -> Figure:
    d, basis = read.detectors, read.detectors.basis
    order = np.argsort(-basis.score)
    rank = [float(k + 1) for k in range(len(order))]
    words = [f"unit {d.units[u]}: {read.table.names[basis.chosen.concept[u]]}" for u in order]
    scores, low, high = (values[order].tolist() for values in (basis.score, d.low, d.high))
    series = [Series("units", rank, scores, "points", low, high, words)]
    if read.rotated is not None:
        curves = read.rotated.curves
        ends = np.quantile(curves, (0.025, 0.975), axis=0).tolist()
        series.append(Series("rotated", rank, curves.mean(0).tolist(), "line", *ends))
    series.append(Series("least of a detector", [rank[0], rank[-1]], [d.least] * 2))
    return Figure(
        "scores",
        "How well units tell a concept",
        f"{read.score.name} of each unit at the concept chosen for it on the other half, largest first. "
        "Rotated: random directions, with 95% of single rotations.",
        "rank of the unit",
        read.score.name,
        tuple(series),
    )


def _concept_figure(read: Dissection) -> Figure:
    basis, names = read.detectors.basis, read.table.names
    counts = np.bincount(basis.chosen.concept[basis.detects], minlength=len(names))
    turned = read.rotated.concepts.mean(0) if read.rotated is not None else np.zeros(len(names))
    order = np.argsort(-(counts + turned), kind="stable")[:BARS]
    shown = [names[k] for k in order]
    series = [Series("units", shown, counts[order].astype(float).tolist(), "bar")]
    if read.rotated is not None:
        series.append(Series("rotated", shown, turned[order].tolist(), "bar"))
    return Figure(
        "concepts",
        "Detectors of each concept",
        "Number of units that detect it, and of random directions, mean over rotations.",
        "concept",
        "detectors",
        tuple(series),
    )


def _ablation_figure(read: Dissection) -> Figure:
    a = read.ablation
    assert a is not None
    rows = a.rows[:BARS]
    series = []
    for name, values in (
        ("with the concept", [r.present for r in rows]),
        ("without it", [r.absent for r in rows]),
        ("with it, other units", [r.control for r in rows]),
    ):
        shown = [(r.concept, v) for r, v in zip(rows, values, strict=True) if v is not None]
        if shown:
            ends = [v.interval or (v.value, v.value) for _, v in shown]
            series.append(
                Series(
                    name,
                    [c for c, _ in shown],
                    [v.value for _, v in shown],
                    "points",
                    [low for low, _ in ends],
                    [high for _, high in ends],
                )
            )
    return Figure(
        "ablation",
        "What is lost without the detectors of a concept",
        f"Loss of {a.what} on examples that have the concept and on others, and with as many random other units.",
        "concept",
        f"loss of {a.what}" + (" (nats)" if a.unit == "nats" else ""),
        tuple(series),
    )


def _best(read: Dissection) -> Sequence[int]:
    """Detectors with the largest scores, of different concepts first."""
    basis = read.detectors.basis
    order = [int(u) for u in np.argsort(-basis.score) if basis.detects[u]]
    seen: dict[int, int] = {}
    for u in order:
        seen.setdefault(int(basis.chosen.concept[u]), u)
    firsts = list(seen.values())
    return [*firsts, *(u for u in order if u not in firsts)][:GALLERIES]


def _gallery(task: Task, read: Dissection, u: int) -> Gallery:
    """The examples that activate a detector most."""
    d, basis = read.detectors, read.detectors.basis
    unit, k = int(d.units[u]), int(basis.chosen.concept[u])
    concept = read.table.names[k]
    has = read.table.has[:, k]
    has = has.flatten(1).any(1) if has.dim() > 1 else has
    sign = 1.0 if read.table.shape else float(basis.chosen.level[u])
    peak = (sign * read.activations[:, :, unit]).amax(1)
    top = peak.argsort(descending=True)[:SHOWN].tolist()
    grids = _grids(task, read, top, unit)
    level = (
        float(basis.chosen.level[u])
        if read.table.shape
        else float(np.quantile(read.activations[:, :, unit].numpy(), BRIGHT))
    )
    items = []
    for place, i in enumerate(top):
        caption = f"{float(peak[i]) * sign:.3g}, {'has it' if has[i] else 'lacks it'}"
        shown = item(task, read.source.data, int(read.index[i]), caption)
        items.append(shown if grids is None or sign < 0 else highlighted(shown, grids[place], level))
    score = f"{read.score.name} {basis.score[u]:.2f} ({d.low[u]:.2f} to {d.high[u]:.2f})"
    low = "" if sign > 0 else ", which it is low on"
    caption = f"{score}. The examples that activate it most."
    return Gallery(f"unit-{unit}", f"Unit {unit}: {concept}{low}", caption, tuple(items))


def highlighted(shown: Item, grid: Tensor, threshold: float) -> Item:
    """Mark in a picture, by greying the rest, where a unit is active.

    Args:
        shown: the example.
        grid: (h, w) activations of the unit, brought to the picture's size.
        threshold: above which it counts as active.

    Returns:
        the example with the active part as it was; all of it where it is no picture.
    """
    if shown.picture is None:
        return shown
    picture = torch.tensor(shown.picture)
    maps = interpolate(grid[None, None], size=tuple(picture.shape[:2]), mode="bilinear", align_corners=False)
    active = maps[0, 0] > threshold
    washed = torch.where(active if picture.dim() == 2 else active.unsqueeze(-1), picture, WASHED * (1 + picture))
    return replace(shown, picture=((washed * 1000).round() / 1000).tolist())


def _grids(task: Task, read: Dissection, examples: Sequence[int], unit: int) -> Tensor | None:
    """A unit's activations on its own grid, of the examples shown; None where it has no grid."""
    if len(read.place.shape) != 2:
        return None
    index = read.index[torch.tensor(examples)]
    again = read_units(task, read.place, read.source.data, index, labelled=read.source.labelled)
    return again.a[:, :, unit].reshape(-1, *read.place.shape)
