"""Gap and test loss told by a calibration, next to the measured ones where there are test data."""

from __future__ import annotations

import math
from collections.abc import Mapping

from memspace.gap.model import GapPrediction
from memspace.measures.correct import by_example, per_prediction
from memspace.measures.declaration import measure
from memspace.measures.values import TestOutputs, TrainingOutputs
from memspace.task.task import Task
from memspace.value import Absent, Value

__all__ = ["EXPECTED_GAP", "gap_measured", "predicted_gap", "predicted_loss"]

Members = Mapping[str, Value | Absent]


@measure(
    "generalisation.predicted_test_loss",
    chapter="gap",
    unit="nats",
    estimator="line through measures, calibrated on a zoo",
    source="barber2021, lee2023",
    better="smaller",
)
def predicted_loss(prediction: GapPrediction, outputs: TrainingOutputs) -> Members:
    """Test loss that a calibration on other networks tells, with the ends of its interval (``.low``, ``.high``)."""
    return _members(prediction.test_loss, prediction.test_loss_interval, prediction, outputs)


@measure(
    "generalisation.predicted_gap",
    chapter="gap",
    unit="nats",
    estimator="line through measures, calibrated on a zoo",
    source="barber2021, lee2023",
    better="smaller",
)
def predicted_gap(prediction: GapPrediction, outputs: TrainingOutputs) -> Members:
    """Test loss less training loss that a calibration on other networks tells, with the ends of its interval."""
    return _members(prediction.gap, prediction.gap_interval, prediction, outputs)


def _members(middle: float, ends: tuple[float, float], prediction: GapPrediction, outputs: TrainingOutputs) -> Members:
    """The value and the two ends; they are numbers of their own, since the level is not 95%."""
    words = {"how": prediction.how, "reliable": prediction.reliable, "note": prediction.note, "per": outputs.per}
    few = Absent(f"{prediction.groups} groups of networks are too few", "calibrate on networks of more groups")
    numbers = {"": middle, "low": ends[0], "high": ends[1]}
    return {k: Value(v, prediction.networks, **words) if math.isfinite(v) else few for k, v in numbers.items()}  # type: ignore[arg-type]


@measure(
    "generalisation.measured_gap",
    chapter="gap",
    unit="nats",
    estimator="mean over test examples less mean over training examples",
    better="smaller",
)
def gap_measured(task: Task, test: TestOutputs, outputs: TrainingOutputs) -> Value:
    """Measured test loss less training loss; the interval is over test examples, given the training data."""
    law = task.likelihood
    losses, count = law.nll(test.f.double(), test.y), law.weight(test.f, test.y)
    train = float(outputs.loss.sum()) / outputs.count
    means = per_prediction(by_example(losses), by_example(count))
    return Value.mean([m - train for m in means], lower=-train, per=outputs.per)


EXPECTED_GAP = (predicted_loss, predicted_gap, gap_measured)
