"""Barrier: what the loss does between two networks, on the straight line and on the path found."""

from __future__ import annotations

from torch import Tensor

from memspace.auditing.chapter import ChapterDeclaration
from memspace.auditing.compare import LINE, NetworkComparison
from memspace.auditing.results import Figure, Finding, Series
from memspace.auditing.thresholds import BARRIER as HIGH
from memspace.intervals import of_mean
from memspace.measurement import Measurement
from memspace.measures.declaration import measure
from memspace.measures.workspace import Measured
from memspace.value import Value

__all__ = ["BARRIER", "barrier_of"]


def barrier_of(share: Tensor, loss: Tensor) -> Value:
    """Return the highest mean loss along a path above the worse of its ends; zero where no point lies above it.

    Args:
        share: of the way, (M,).
        loss: nats per example at each point, (M, n).

    Returns:
        the barrier, nats; its interval holds the highest rise of any point.
    """
    worse = loss[0] if float(loss[0].mean()) >= float(loss[-1].mean()) else loss[-1]
    rise = loss[1:-1] - worse
    top = int(rise.mean(1).argmax())
    intervals = [of_mean(r) for r in rise]
    ends = [i.ends for i in intervals if i.ends is not None]
    high = max((high for _, high in ends), default=0.0)
    low = intervals[top].ends
    value, doubt = float(rise[top].mean()), intervals[top].doubt
    return Value(
        max(0.0, value),
        loss.shape[1],
        (max(0.0, low[0]) if low is not None else 0.0, max(0.0, high)),
        how=f"{len(loss)} points" + (f", highest at share {float(share[top + 1]):.2f}" if value > 0 else ""),
        reliable=not doubt,
        note=doubt,
    )


@measure(
    "barrier",
    chapter="barrier",
    unit="nats",
    estimator="highest mean loss on the way above that of the worse end",
    source="frankle2020 [here above the worse end, not their mean]",
    better="smaller",
)
def barriers(found: NetworkComparison) -> dict[str, Value]:
    """How far the loss rises between the networks, by path (line, geodesic) and data (training, test)."""
    values = {}
    for name, loss in found.losses.items():
        path, data = name.split(", ")
        values[f"{'line' if path == LINE else 'geodesic'}.{data.split()[0]}"] = barrier_of(found.share, loss)
    return values


def _rises(m: Measurement) -> str:
    return f"the loss rises {m.value:.2g} nats above the worse end" if m.value > 0 else "no loss is above the worse end"


def answer(measured: Measured) -> str:
    """Say how far the loss rises on both paths."""
    line, path = measured["barrier.line.training"], measured["barrier.geodesic.training"]
    return f"On the straight line {_rises(line)}, and {_rises(path)} on the path found."


def between(measured: Measured) -> Finding:
    """Say whether a barrier lies on the straight line, and whether the path found avoids it."""
    line, path = measured["barrier.line.training"], measured["barrier.geodesic.training"]
    low, high = line.interval or (line.value, line.value)
    _, path_high = path.interval or (path.value, path.value)
    evidence = (
        f"{line.value:.2g} nats (95%: {low:.2g} to {high:.2g}) on the straight line, {path.value:.2g} on the path "
        "found, above the worse of the two networks."
    )
    level, title, action = "good", "No barrier on the straight line", ""
    if low > HIGH and path_high < low:
        level, title = "note", "The two networks lie in one valley, though not in a straight line from each other"
        action = "Follow the path found, not the straight line."
    elif low > HIGH:
        level, title = "warn", "A barrier lies between the two networks"
        action = "Do not average their weights; try --align."
    elif high <= HIGH:
        action = f"Averages of their weights have at most {high:.2g} nats more loss than the worse of the two."
    else:
        level, title = "note", "Whether a barrier lies on the straight line cannot be told from these examples"
        action = "Compare on more examples."
    return Finding(level, title, evidence, action, "barrier")


def loss_figure(found: NetworkComparison) -> Figure:
    """Draw the mean loss along both paths."""
    return Figure(
        "loss",
        "Loss along the way",
        "Mean loss on the straight line and on the path found, from the first network to the second.",
        "share of the way",
        "nats",
        tuple(Series(name, found.share.tolist(), loss.mean(1).tolist()) for name, loss in found.losses.items()),
    )


BARRIER = ChapterDeclaration(
    id="barrier",
    title="Barrier",
    question="What lies between them?",
    answer=answer,
    measures=(barriers,),
    findings=(between,),
    figures=(loss_figure,),
)
