"""Between two networks: which of them is better, and what the loss does on the way from one to the other."""

from __future__ import annotations

import torch

from memspace.auditing.compare import NetworkComparison
from memspace.auditing.results import Chapter, Figure, Finding, Series
from memspace.auditing.thresholds import BARRIER
from memspace.intervals import of_mean
from memspace.measurement import Measurement, Unmeasured, from_samples

__all__ = ["barrier_chapter", "better_chapter"]

LINE, PATH = "straight line", "geodesic"


def better_chapter(found: NetworkComparison, names: tuple[str, str]) -> Chapter:
    """Loss of the second network less that of the first, example by example, on test and training data."""
    measured: list[Measurement] = []
    absent: list[Unmeasured] = []
    for data in ("test", "training"):
        loss = found.losses.get(f"{LINE}, {data} examples")
        if loss is None:
            why = "the task has no test data"
            absent.append(Unmeasured("compare.test_loss_difference", why, "give the task test data: Task(test=...)"))
            continue
        how = f"loss of the second less the first network's on the same {data} examples"
        each = loss[-1] - loss[0]
        name = f"compare.{data}_loss_difference"
        first, second = float(loss[0].mean()), float(loss[-1].mean())
        note = f"{first:.3g} nats of the first, {second:.3g} of the second"
        measured.append(from_samples(name, each, "nats", how, note=note))
    judged = measured[0]
    where = "test" if not absent else "training"
    low, high = judged.interval or (judged.value, judged.value)
    evidence = f"Loss on {where} examples, second less first: {judged.value:.2g} nats (95%: {low:.2g} to {high:.2g})."
    if not judged.reliable or low <= 0 <= high:
        finding = Finding(
            "note",
            f"Neither network is better on {where} examples, as far as these can tell",
            evidence,
            "Compare on more examples, or choose by another measure.",
            "better",
        )
        answer = f"Neither, as far as {judged.n:,} {where} examples can tell: {evidence[0].lower() + evidence[1:]}"
    else:
        winner = names[1] if judged.value < 0 else names[0]
        ordinal = "second" if judged.value < 0 else "first"
        action = (
            "Prefer it." if where == "test" else "Give the task test data: training loss does not tell which to use."
        )
        title = f"The {ordinal} network is better on {where} examples: {winner}"
        finding = Finding("note", title, evidence, action, "better")
        answer = f"The {ordinal}, {winner}, by {abs(judged.value):.2g} nats of {where} loss."
    return Chapter(
        "better", "Better", "Which network is better?", answer, tuple(measured), tuple(absent), (finding,), ()
    )


def barrier_of(name: str, share: torch.Tensor, loss: torch.Tensor) -> Measurement:
    """Highest mean loss along a path above the worse of its ends; zero where no point lies above it.

    Args:
        share: (M,) of the way; loss: (M, n) nats per example.
    """
    worse = loss[0] if float(loss[0].mean()) >= float(loss[-1].mean()) else loss[-1]
    rise = loss[1:-1] - worse
    top = int(rise.mean(1).argmax())
    found = [of_mean(r) for r in rise]
    ends = [f.ends for f in found if f.ends is not None]
    high = max((high for _, high in ends), default=0.0)
    low = found[top].ends
    value = float(rise[top].mean())
    at = f" at share {float(share[top + 1]):.2f}" if value > 0 else ""
    return Measurement(
        name,
        max(0.0, value),
        "nats",
        f"highest mean loss{at} of {len(loss)} points above that of the worse end",
        loss.shape[1],
        (max(0.0, low[0]) if low is not None else 0.0, max(0.0, high)),
        "frankle2020 [here above the worse end, not their mean]",
        not found[top].doubt,
        found[top].doubt,
    )


def barrier_chapter(found: NetworkComparison) -> Chapter:
    """The loss along the straight line and along the path found."""
    measured, series = [], []
    for name, loss in found.losses.items():
        kind, data = name.split(", ")
        short = ("line" if kind == LINE else "geodesic") + "." + data.split()[0]
        measured.append(barrier_of(f"barrier.{short}", found.share, loss))
        series.append(Series(name, found.share.tolist(), loss.mean(1).tolist()))
    by = {m.name: m for m in measured}
    line, best = by["barrier.line.training"], by["barrier.geodesic.training"]
    low, high = line.interval or (line.value, line.value)
    evidence = (
        f"{line.value:.2g} nats (95%: {low:.2g} to {high:.2g}) on the straight line, {best.value:.2g} on the path "
    )
    evidence += "found, above the worse of the two networks."
    path_high = best.interval[1] if best.interval is not None else best.value
    if low > BARRIER and path_high < low:
        title = "The two networks lie in one valley, though not in a straight line from each other"
        finding = Finding("note", title, evidence, "Follow the path found, not the straight line.", "barrier")
    elif low > BARRIER:
        title = "A barrier lies between the two networks"
        finding = Finding("warn", title, evidence, "Do not average their weights; try --align.", "barrier")
    elif high <= BARRIER:
        finding = Finding(
            "good",
            "No barrier on the straight line",
            evidence,
            f"Averages of their weights have at most {high:.2g} nats more loss than the worse of the two.",
            "barrier",
        )
    else:
        title = "Whether a barrier lies on the straight line cannot be told from these examples"
        finding = Finding("note", title, evidence, "Compare on more examples.", "barrier")
    figure = Figure(
        "loss",
        "Loss along the way",
        "Mean loss on the straight line and on the path found, from the first network to the second.",
        "share of the way",
        "nats",
        tuple(series),
    )
    answer = "On the straight line " + _rises(line) + ", and " + _rises(best) + " on the path found."
    return Chapter("barrier", "Barrier", "What lies between them?", answer, tuple(measured), (), (finding,), (figure,))


def _rises(m: Measurement) -> str:
    return f"the loss rises {m.value:.2g} nats above the worse end" if m.value > 0 else "no loss is above the worse end"
