"""Path: how far a recorded training travelled, from what its checkpoints predict on the probe."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from memspace.action.drift import readings_along
from memspace.action.lengths import bought, clocked_action, lengths
from memspace.action.measures import TRAINING_MEASURES
from memspace.action.training import TrainingAction
from memspace.auditing.chapter import ChapterDeclaration
from memspace.auditing.results import Figure, Finding, Series
from memspace.errors import MemspaceError, RunFolderError
from memspace.geometry.distance import squared_distances
from memspace.geometry.path import Walk, walk
from memspace.measurement import Unmeasured
from memspace.measures.workspace import Measured
from memspace.task.likelihood import Likelihood
from memspace.task.recording import Recording
from memspace.value import Absent

__all__ = ["AGAIN", "PATH", "RecordedPath", "recorded_path"]

AGAIN = "audit it with its task: memspace audit TASK --run FOLDER"


@dataclass(frozen=True)
class RecordedPath:
    """The polygon of checkpoints on the probe.

    Args:
        step: optimiser steps of the S checkpoints.
        steps: the path from each to the next.
        direct: distance of each from the first, (S,) nats^½.
        action: lengths, action and loss, with their intervals.
    """

    step: tuple[int, ...]
    steps: Walk
    direct: tuple[float, ...]
    action: TrainingAction


def recorded_path(found: Recording) -> RecordedPath | Absent:
    """Measure the path of a recorded training, without its model and data.

    Args:
        found: the recording.

    Returns:
        the path, or why it is not known.

    Raises:
        RunFolderError: outputs and labels of the probe do not fit each other.
    """
    run, law = found.run, found.law
    if len(run.step) < 2:
        return Absent("only one checkpoint was recorded", AGAIN)
    if law is None:
        return Absent("the output law is not one of memspace's", AGAIN)
    outputs = [f for f in map(found.outputs, range(len(run.step))) if f is not None]
    if len(outputs) < len(run.step):
        return Absent("the probe's outputs were too large to be kept", AGAIN)
    y, f = _checked(found, law, outputs)
    weight = law.weight(f[0], y)
    steps = walk(law, f, weight)
    squared = [squared_distances(law, f[0], x, weight) for x in f]
    readings = readings_along(law, f, run.step, weight, run.one_step)
    measurements, unmeasured = lengths(steps, None, squared[-1], len(f), readings)
    measurements.append(bought(torch.stack([law.nll(x, y).reshape(len(y), -1).sum(1) for x in f])))
    if all(b > a for a, b in itertools.pairwise(run.time)):
        measurements.append(clocked_action(steps, readings, run.time, len(f)))
    else:
        still = "the learning rates were not told, or none was positive between two checkpoints"
        remedy = "attach the optimiser, or run.step(rate=...)"
        unmeasured.append(Unmeasured("action.learning_rate_time", still, remedy))
    action = TrainingAction(tuple(measurements), tuple(unmeasured), run.time, run.step)
    return RecordedPath(run.step, steps, tuple(float(d.mean().sqrt()) for d in squared), action)


def _checked(found: Recording, law: Likelihood, outputs: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """Labels and outputs (S, n, ..., C), which a damaged folder may hold of several shapes."""
    try:
        y, stacked = found.labels(), torch.stack(list(outputs)).double()
        law.check(stacked[0], y, str(found.folder))
    except (RuntimeError, MemspaceError) as error:
        raise RunFolderError(
            "the recorded training is damaged: outputs and labels of its probe do not fit each other",
            where=str(found.folder),
            remedy="record it again, or restore the folder",
        ) from error
    return y, stacked


def answer(measured: Measured, path: RecordedPath) -> str:
    """Say how much loss was bought along which path."""
    length = measured.get("action.drift_length", measured["action.length"]).value
    sentence = f"{measured['action.loss_bought'].value:.3g} nats of loss bought along a path of {length:.3g} nats^½"
    ratio = measured.get("action.inefficiency")
    return sentence + (f", {ratio.value:.1f} times the shortest." if ratio is not None else ".")


def fault(found: Recording) -> Finding | None:
    """Say what stopped the recording, if anything did."""
    if not found.index["fault"]:
        return None
    what = str(found.index["fault"])
    return Finding("warn", "The recording is not complete", what, "Record again where the rest matters.", "path")


def checkpoints_figure(path: RecordedPath) -> Figure:
    """Draw the length so far and the distance from the start against the steps."""
    steps = [max(s, 0.5) for s in path.step]
    travelled = [0.0, *torch.cumsum(path.steps.steps, 0).tolist()]
    return Figure(
        "checkpoints",
        "Along the checkpoints",
        "Length of the path so far, and the distance from where it began: where the two part, training turns.",
        "optimiser step",
        "nats^½",
        (Series("travelled", steps, travelled), Series("from the start", steps, list(path.direct))),
        "log",
    )


PATH = ChapterDeclaration(
    id="path",
    title="Path",
    question="How far did training travel, and how much of it was needed?",
    answer=answer,
    measures=TRAINING_MEASURES,
    findings=(fault,),
    figures=(checkpoints_figure,),
)
