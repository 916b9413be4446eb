"""Distance: how far apart two networks are, between a bound that no path undercuts and paths that exist."""

from __future__ import annotations

import torch
from torch import Tensor

from memspace.action.lengths import distance_effect, distance_value, interval
from memspace.auditing.chapter import ChapterDeclaration
from memspace.auditing.compare import NetworkComparison
from memspace.auditing.results import Figure, Finding, Series
from memspace.auditing.thresholds import LONGER_LINE
from memspace.geometry.geodesic import PathLength
from memspace.intervals import margin
from memspace.measures.declaration import measure
from memspace.value import Absent, Value

__all__ = ["DISTANCE"]

LENGTH = "nats^½"
RAO = "rao1945"


def _length(found: PathLength, n: int, how: str = "") -> Value:
    """A polygon's length: a third of what the last halving added is in the value, all of it in the interval."""
    half = margin(found.error(), n - 1)
    steps = f"{len(found.squared) + 1} points, closed-form Fisher–Rao steps on {n} examples"
    return Value(
        found.value,
        n,
        (max(0.0, found.measured - half), found.upper + half),
        how=f"{how}, {steps}" if how else steps,
        note=f"the last halving of the step added {found.change:.2g}; a third of it is in the value, all in the "
        "interval",
    )


def _of_ratio(value: float, above: PathLength, below: Tensor, by: float, less: float = 0.0) -> tuple[float, float]:
    """Interval of a path's length over another (``by``; its relative effect ``below``), less 1 or 0, never below 0."""
    ratio = value + less
    low, high = interval(value, above.effect().cpu() / by - ratio * below, max(0.0, above.change) / by)
    return min(value, max(0.0, low)), high


def _ends(found: NetworkComparison) -> Tensor:
    """Squared distance of the two networks' predictions, per example, (n,) nats."""
    g = found.geodesic
    return g.probe.squared(g.points[[0, -1]]).detach()[0].cpu()


@measure("compare.lower_bound", chapter="distance", unit=LENGTH, estimator="closed form on the predictions", source=RAO)
def lower_bound(found: NetworkComparison) -> Value:
    """Distance of the predictions of the two networks: no path between them is shorter."""
    return distance_value(_ends(found))


@measure("compare.length_found", chapter="distance", unit=LENGTH, estimator="string method", source=RAO)
def length_found(found: NetworkComparison) -> Value:
    """Length of the shortest path found."""
    g = found.geodesic
    return _length(g.length, g.probe.n, f"from the {g.start} ({g.status})")


@measure(
    "compare.straight_line_length", chapter="distance", unit=LENGTH, estimator="straight in the parameters", source=RAO
)
def straight_line_length(found: NetworkComparison) -> Value:
    """Length of the straight line in the weights."""
    return _length(found.geodesic.straight, found.geodesic.probe.n)


@measure(
    "compare.path_length",
    chapter="distance",
    unit=LENGTH,
    estimator="the path given, straight between its checkpoints",
    source=RAO,
)
def path_length(found: NetworkComparison) -> Value | None:
    """Length of the path that was given, for example of a training."""
    g = found.geodesic
    return None if g.given is None else _length(g.given, g.probe.n)


@measure(
    "compare.gap",
    chapter="distance",
    unit="1",
    estimator="upper bound of the length found over the lower bound, less 1",
    better="smaller",
)
def gap(found: NetworkComparison) -> Value | Absent:
    """Share by which a path shorter than the one found could be so at most."""
    g = found.geodesic
    if g.lower <= 0:
        return Absent("the two networks predict the same", "compare networks that differ")
    bounds = _of_ratio(g.gap, g.length, distance_effect(_ends(found)) / g.lower, g.lower, 1.0)
    return Value(g.gap, g.probe.n, bounds, note="at most this share is left to gain")


@measure("compare.over_straight_line", chapter="distance", unit="1", estimator="length found over the straight line's")
def over_straight_line(found: NetworkComparison) -> Value | None:
    """Length of the path found over that of the straight line."""
    g = found.geodesic
    by = g.straight.value
    if by <= 0:
        return None
    return Value(g.ratio, g.probe.n, _of_ratio(g.ratio, g.length, g.straight.effect().cpu() / by, by))


@measure(
    "compare.search_epochs",
    chapter="distance",
    unit="epochs",
    estimator="forward and backward passes of the energy's evaluations",
)
def search_epochs(found: NetworkComparison) -> Value:
    """What the search for the path cost."""
    g = found.geodesic
    return Value(g.epochs, g.probe.n, how=f"{g.evaluations} evaluations")


@measure(
    "compare.disagreement",
    chapter="distance",
    unit="1",
    estimator="share of predicted classes that differ",
    shown="share",
)
def disagreement(found: NetworkComparison) -> Value | None:
    """Share of examples (or positions) that the two networks put into different classes."""
    probe, (p, q) = found.geodesic.probe, found.outputs
    law = probe.task.likelihood
    if not law.classifies:
        return None
    differ = (law.predict(p) != law.predict(q)).double()
    counted = probe.weight.cpu() > 0
    counted = counted if counted.shape == differ.shape else torch.ones_like(differ, dtype=torch.bool)
    groups = torch.arange(len(differ)).reshape(-1, *[1] * (differ.dim() - 1)).expand(differ.shape)
    shared = groups[counted] if differ.dim() > 1 else None  # the positions of a sequence are not independent
    return Value.share(differ.cpu()[counted], groups=shared)


@measure(
    "compare.units_moved",
    chapter="distance",
    unit="1",
    estimator="weight matching by linear assignment",
    source="ainsworth2023",
    shown="share",
)
def units_moved(found: NetworkComparison) -> Value | None:
    """Share of the hidden units that matching put in another place."""
    m = found.matching
    return None if m is None else Value(m.moved, sum(map(len, m.permutations.values())))


@measure(
    "compare.straight_line_before_matching",
    chapter="distance",
    unit=LENGTH,
    estimator="straight in the parameters, units as they were",
    source=RAO,
)
def straight_line_before(found: NetworkComparison) -> Value | None:
    """Length of the straight line in the weights before the units were matched."""
    return None if found.unmatched is None else _length(found.unmatched, found.geodesic.probe.n)


def answer(found: NetworkComparison) -> str:
    """Say between which lengths the distance lies."""
    g = found.geodesic
    bounds = f"At least {g.lower:.3g} and at most {g.length.upper:.3g} nats^½"
    return f"{bounds}; the straight line takes {g.straight.value:.3g}."


def straightness(found: NetworkComparison) -> Finding:
    """Say whether the straight line is a short way."""
    g = found.geodesic
    evidence = f"Between {g.lower:.3g} and {g.length.upper:.3g} nats^½ "
    evidence += "(π is the most two laws over classes can differ)."
    if g.straight.value > LONGER_LINE * g.length.value:
        return Finding(
            "note",
            f"The straight line is {g.straight.value / g.length.value:.1f} times as long as the path found",
            evidence,
            "To walk from one to the other without disturbing predictions, follow the path and not the line.",
            "distance",
        )
    return Finding("good", "The straight line is nearly the shortest path", evidence, "Nothing to do.", "distance")


def matched(found: NetworkComparison) -> Finding | None:
    """Say what matching the units has shortened."""
    if found.matching is None or found.unmatched is None:
        return None
    before, after = found.unmatched.value, found.geodesic.straight.value
    times = before / after if after > 0 else 1.0
    return Finding(
        "note",
        f"Matching the hidden units made the straight line {times:.3g} times shorter",
        f"{before:.3g} before, {after:.3g} nats^½ after; {found.matching.moved:.0%} of the units changed place.",
        "Nothing to do.",
        "distance",
    )


def bounds_figure(found: NetworkComparison) -> Figure:
    """Draw the lower bound and every path's length as bars."""
    g = found.geodesic
    bars = {"lower bound": g.lower, "path found": g.length.value, "straight line": g.straight.value}
    if g.given is not None:
        bars["path given"] = g.given.value
    if found.unmatched is not None:
        bars["straight line before matching"] = found.unmatched.value
    return Figure(
        "bounds",
        "How far apart",
        "Nothing is shorter than the lower bound; each path is one that exists.",
        "",
        "nats^½",
        (Series("Fisher–Rao length", list(bars), list(bars.values()), "bar"),),
    )


DISTANCE = ChapterDeclaration(
    id="distance",
    title="Distance",
    question="How far apart are the two networks?",
    answer=answer,
    measures=(
        lower_bound,
        length_found,
        straight_line_length,
        path_length,
        gap,
        over_straight_line,
        search_epochs,
        disagreement,
        units_moved,
        straight_line_before,
    ),
    findings=(straightness, matched),
    figures=(bounds_figure,),
)
