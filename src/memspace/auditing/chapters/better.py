"""Better: which of two networks is, from pairs of losses on the same examples."""

from __future__ import annotations

from collections.abc import Callable

from memspace.auditing.chapter import ChapterDeclaration
from memspace.auditing.compare import LINE, NetworkComparison, NetworkNames
from memspace.auditing.results import Finding
from memspace.measurement import Measurement
from memspace.measures.declaration import measure
from memspace.measures.workspace import Measured
from memspace.value import Absent, Value

__all__ = ["BETTER"]


def _loss_difference(data: str) -> Callable[..., Value | Absent]:
    """Declare the difference of the losses on test or on training data."""
    how = f"loss of the second less the first network's on the same {data} examples"

    @measure(f"compare.{data}_loss_difference", chapter="better", unit="nats", estimator=how)
    def difference(found: NetworkComparison) -> Value | Absent:
        """Loss of the second network less that of the first, example by example."""
        loss = found.losses.get(f"{LINE}, {data} examples")
        if loss is None:
            return Absent("the task has no test data", "give the task test data: Task(test=...)")
        first, second = float(loss[0].mean()), float(loss[-1].mean())
        note = f"{first:.3g} nats of the first, {second:.3g} of the second"
        return Value.mean(loss[-1] - loss[0], note=note)

    return difference


def _judged(measured: Measured) -> tuple[Measurement, str, bool]:
    """The difference to judge by, on which examples it is, and whether it tells the two apart."""
    where = "test" if "compare.test_loss_difference" in measured else "training"
    difference = measured[f"compare.{where}_loss_difference"]
    low, high = difference.interval or (difference.value, difference.value)
    return difference, where, difference.reliable and not low <= 0 <= high


def _winner(difference: Measurement, names: NetworkNames) -> tuple[str, str]:
    return ("second", names.second) if difference.value < 0 else ("first", names.first)


def _evidence(difference: Measurement, where: str) -> str:
    low, high = difference.interval or (difference.value, difference.value)
    return f"Loss on {where} examples, second less first: {difference.value:.2g} nats (95%: {low:.2g} to {high:.2g})."


def answer(measured: Measured, names: NetworkNames) -> str:
    """Say which network has the smaller loss, and by how much."""
    difference, where, told_apart = _judged(measured)
    if not told_apart:
        evidence = _evidence(difference, where)
        return f"Neither, as far as {difference.n:,} {where} examples can tell: {evidence[0].lower()}{evidence[1:]}"
    ordinal, name = _winner(difference, names)
    return f"The {ordinal}, {name}, by {abs(difference.value):.2g} nats of {where} loss."


def which(measured: Measured, names: NetworkNames) -> Finding:
    """Say which network to prefer, where these examples can tell."""
    difference, where, told_apart = _judged(measured)
    evidence = _evidence(difference, where)
    if not told_apart:
        title = f"Neither network is better on {where} examples, as far as these can tell"
        return Finding("note", title, evidence, "Compare on more examples, or choose by another measure.", "better")
    ordinal, name = _winner(difference, names)
    title = f"The {ordinal} network is better on {where} examples: {name}"
    action = "Prefer it."
    if where == "training":
        action = "Give the task test data: training loss does not tell which to use."
    return Finding("note", title, evidence, action, "better")


BETTER = ChapterDeclaration(
    id="better",
    title="Better",
    question="Which network is better?",
    answer=answer,
    measures=(_loss_difference("test"), _loss_difference("training")),
    findings=(which,),
)
