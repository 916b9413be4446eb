"""How many labels are wrong, and how well a ranking finds them where the wrong ones are known."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import Tensor

from memspace.measures.declaration import measure, provides, table
from memspace.measures.judge import Judged
from memspace.measures.labels import LabelModel
from memspace.measures.outputs_judged import OutputsJudged
from memspace.measures.targets import Targets
from memspace.measures.values import SelfInfluence, TrainingOutputs
from memspace.task.task import Task
from memspace.value import Absent, Value

__all__ = [
    "KnownWrong",
    "WrongLabels",
    "average_precision",
    "expected_wrong",
    "noise",
    "noise_of",
    "suggestion_accuracy",
    "wrong_label_columns",
]


@dataclass(frozen=True)
class WrongLabels:
    """Of the training labels.

    Args:
        noise: the share that is wrong.
        expected: how many they are.
        likely: how many are more likely wrong than right.
    """

    noise: Value
    expected: Value
    likely: int


@dataclass(frozen=True)
class KnownWrong:
    """Labels known to be wrong, where the true ones were given.

    Args:
        labels: every label as judged.
        wrong: (n,) True where the label is wrong.
        truth: (n,) the true labels.
    """

    labels: Judged
    wrong: Tensor
    truth: Tensor


@provides()
def wrong_labels(
    labels: Judged | Absent, several: OutputsJudged | None, targets: Targets | None
) -> WrongLabels | Absent:
    """Count the labels that look wrong: one class for each example, or several choices."""
    if isinstance(labels, Judged):
        n, (low, high) = labels.model.n, labels.model.interval
        by, model = f"judged by {labels.estimator}", labels.model
        expected = Value(float(labels.p.sum()), n, (n * low, n * high), by, model.reliable, model.statement)
        return WrongLabels(noise_of(model, labels.estimator), expected, int((labels.p > 0.5).sum()))
    if several is not None:
        return WrongLabels(several.noise, several.expected, int((several.p > 0.5).sum()))
    return labels if targets is None else Absent()


@provides()
def known_wrong(task: Task, outputs: TrainingOutputs, labels: Judged | None) -> KnownWrong | Absent:
    """Compare labels with the true ones, where these were given."""
    if labels is None or task.true_labels is None:
        return Absent()
    truth = task.true_labels.to(outputs.y.device)
    wrong = truth != outputs.y
    return KnownWrong(labels, wrong, truth) if bool(wrong.any()) else Absent()


def noise_of(model: LabelModel, estimator: str) -> Value:
    """Return the share of wrong labels, with its interval and what it is worth.

    Args:
        model: the fitted noise model.
        estimator: by whom labels were judged, for people.

    Returns:
        a share of the labels.
    """
    how = f"{model.pattern} noise; judged by {estimator}"
    return Value(model.noise, model.n, model.interval, how, model.reliable, model.statement)


@measure(
    "labels.noise",
    chapter="stored",
    unit="1",
    estimator="share of wrong labels",
    source="natarajan2013",
    shown="share",
)
def noise(labels: WrongLabels) -> Value:
    """Share of the training labels that are wrong."""
    return labels.noise


@measure("labels.expected_wrong", chapter="stored", unit="labels", estimator="sum of the probabilities")
def expected_wrong(labels: WrongLabels | None) -> Value | None:
    """How many training labels are wrong; where none is judged, the share says why."""
    return None if labels is None else labels.expected


@measure(
    "labels.average_precision",
    chapter="stored",
    unit="1",
    estimator="against the known corrupted labels",
    better="larger",
)
def average_precision(known: KnownWrong, outputs: TrainingOutputs, influence: SelfInfluence) -> dict[str, Value]:
    """How well a ranking puts wrong labels first, by the quantity that ranks."""
    from sklearn.metrics import average_precision_score

    flags = known.wrong.cpu().numpy()
    scores = {
        "p_wrong_label": known.labels.p,
        "training_loss": outputs.loss,
        "self_influence": influence.total,
    }
    return {
        name: Value(float(average_precision_score(flags, score.cpu().numpy())), outputs.n)
        for name, score in scores.items()
    }


@measure(
    "labels.suggestion_accuracy",
    chapter="stored",
    unit="1",
    estimator="suggested label equals the true one, over the truly wrong labels",
    better="larger",
    shown="share",
)
def suggestion_accuracy(known: KnownWrong) -> Value:
    """How often the label suggested for a wrong one is right."""
    wrong, suggested = known.wrong, known.labels.suggested
    right = (suggested[wrong] == known.truth.to(suggested.device)[wrong]).double()
    return Value.mean(right.tolist())


@table("examples")
def wrong_label_columns(labels: Judged) -> dict[str, list[Any]]:
    """Return the probability that each label is wrong, and the suggested label."""
    return {"p_wrong_label": labels.p.tolist(), "suggested_label": labels.suggested.tolist()}
