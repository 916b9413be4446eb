"""A page on the gap that a calibration tells, next to the measured one where there are test data."""

from __future__ import annotations

from memspace.auditing.chapter import ChapterDeclaration
from memspace.auditing.page import make_page
from memspace.auditing.results import Figure, Finding, Results, Series
from memspace.gap.model import GapPrediction
from memspace.measures.expected_gap import EXPECTED_GAP
from memspace.measures.values import TestOutputs, TrainingOutputs
from memspace.measures.workspace import Measured, Workspace
from memspace.task.task import Task
from memspace.value import Absent

__all__ = ["GAP", "gap_results"]


def answer(prediction: GapPrediction, outputs: TrainingOutputs, measured: Measured) -> str:
    """Say what to expect, whether to trust it, and what was measured."""
    low, high = prediction.test_loss_interval
    gap_low, gap_high = prediction.gap_interval
    text = (
        f"Test loss {prediction.test_loss:.3g} {outputs.nats} ({low:.2g} to {high:.2g}), gap {prediction.gap:.3g} "
        f"({gap_low:.2g} to {gap_high:.2g}): a {prediction.how}."
    )
    if not prediction.reliable:
        text = f"{text} Do not rely on it: {prediction.note}."
    gap = measured.get("generalisation.measured_gap")
    return text if gap is None else f"{text} Measured on {gap.n:,} test examples: a gap of {gap.value:.3g}."


def outside_of_calibration(prediction: GapPrediction) -> Finding | None:
    """Warn where the network lies outside of what was calibrated."""
    if prediction.reliable:
        return None
    return Finding(
        "warn",
        "The calibration does not cover this network",
        f"{prediction.note[:1].upper()}{prediction.note[1:]}.",
        "Measure the loss on held-out data, or calibrate on networks like this one.",
        "gap",
    )


def drivers(prediction: GapPrediction) -> Figure:
    """Draw what the prediction is made of."""
    names, parts = list(prediction.drivers), list(prediction.drivers.values())
    return Figure(
        "drivers",
        "What drives the prediction",
        f"Part of each measure in {prediction.target}, against the mean network of the calibration; the largest.",
        "measure",
        prediction.target,
        (Series("part", names, parts, "bar"),),
    )


GAP = ChapterDeclaration(
    id="gap",
    title="Gap to expect",
    question="Which test loss do networks with such measures have?",
    answer=answer,
    measures=EXPECTED_GAP,
    findings=(outside_of_calibration,),
    figures=(drivers,),
)


def gap_results(
    task: Task, prediction: GapPrediction, outputs: TrainingOutputs, test: TestOutputs | Absent, source: str
) -> Results:
    """Put a prediction on a page.

    Args:
        task: the network and its data.
        prediction: of a calibration.
        outputs: on the training data.
        test: outputs on the test data, where there are any.
        source: which calibration it is.

    Returns:
        one chapter.
    """
    values = {Task: task, GapPrediction: prediction, TrainingOutputs: outputs, TestOutputs: test}
    facts = {"model": type(task.model).__name__, "training examples": f"{outputs.n:,}", "calibration": source}
    return make_page(
        task.name, (GAP,), Workspace(values), facts=facts | dict(task.description), settings={"level": prediction.level}
    )
