"""How far inputs may move: what the metric predicts for each, against attacks and corruptions."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

import numpy as np
from torch import Tensor

from memspace.measures.attack import Found
from memspace.measures.corruptions import CORRUPTIONS, Corrupted
from memspace.measures.declaration import measure, truth
from memspace.measures.input_metric import InputReading
from memspace.measures.input_study import STEP, AttackSettings, InputStudy, probed_inputs
from memspace.measures.ranks import bootstrap_median, spearman
from memspace.measures.workspace import Workspace
from memspace.progress import Progress, Silent
from memspace.task.task import Task
from memspace.value import Absent, Value

__all__ = ["INPUT_MEASURES", "study_inputs"]

Part = Callable[..., Value | Absent | None]
SQUARED = "nats per squared input unit"
PREDICTORS: dict[str, tuple[str, Callable[[InputReading, str], Tensor]]] = {
    "linear": (
        "the linearised distance min gap/‖∇gap‖",
        lambda reading, norm: reading.linear if norm == "l2" else reading.linear_max,
    ),
    "fisher": ("Fisher–Rao distance to the boundary over √λ_max(G)", lambda reading, _norm: reading.fisher),
    "margin": ("the smallest gap of the outputs", lambda reading, _norm: reading.margin),
    "boundary": ("the Fisher–Rao distance to the boundary alone", lambda reading, _norm: reading.boundary),
    "flatness": ("−λ_max(G) alone", lambda reading, _norm: -reading.top),
}


@measure(
    "input.lambda_max",
    chapter="robustness",
    unit=SQUARED,
    estimator="largest eigenvalue of the metric pulled back to the input, exact by the C × C dual",
)
@truth()
def input_sensitivity(study: InputStudy) -> Value | Absent:
    """How fast a prediction changes along the input's most sensitive direction, on average."""
    return study.unreadable if study.reading is None else Value.mean(study.reading.top, lower=0.0)


@measure(
    "input.trace",
    chapter="robustness",
    unit=SQUARED,
    estimator="trace of the metric pulled back to the input, C backward passes an input",
)
@truth()
def input_trace(study: InputStudy) -> Value | None:
    """How fast a prediction changes under noise on all of the input, on average."""
    return None if study.reading is None else Value.mean(study.reading.trace, lower=0.0)


@measure(
    "input.kl_ratio",
    chapter="robustness",
    unit="1",
    estimator=f"median over examples of measured over predicted KL, {STEP} nats predicted, along the weakest direction",
    shown="ratio",
)
@truth()
def input_step_ratio(study: InputStudy) -> Value | None:
    """How well the second order predicts the effect of a small step of the input."""
    if study.step_ratio is None:
        return None
    ratio = study.step_ratio.cpu().numpy()
    middle, ends = bootstrap_median(ratio) if len(ratio) else (math.nan, None)
    return Value(middle, len(ratio), ends)


def _found(study: InputStudy, norm: str) -> Found | None:
    return study.found if norm == "l2" else study.found_max


def _distance_measures(norm: str) -> tuple[Part, ...]:
    """Declare the measures of smallest perturbations in one norm."""
    name, chapter = f"input.distance_{norm}", "robustness" if norm == "l2" else "attack"
    searched = "median; projected gradient descent, radius bisected: an upper bound"

    @measure(name, chapter=chapter, unit="input units", estimator=searched, better="larger")
    @truth()
    def distance(task: Task, study: InputStudy) -> Value | Absent | None:
        """Length of the smallest step of the input that changes a decision."""
        attack = _found(study, norm)
        if attack is None and norm == "l2" and study.reading is not None:
            kind = "have no known boundary" if task.likelihood.classifies else "are numbers, not decisions"
            law = f"predictions of the {task.likelihood.name} law {kind}"
            return Absent(law, "read λ_max of the input metric instead")
        return None if attack is None else _median(attack.distance, study)

    over = "median of measured over linearised distance"

    @measure(f"{name}.over_linear", chapter=chapter, unit="1", estimator=over, shown="ratio")
    @truth()
    def over_linear(study: InputStudy) -> Value | None:
        """Ratio of the measured distance to the linearised one."""
        attack = _found(study, norm)
        if attack is None or study.reading is None:
            return None
        return _median(attack.distance / PREDICTORS["linear"][1](study.reading, norm), study)

    return distance, over_linear, *(_rank_measure(norm, key) for key in PREDICTORS)


def _rank_measure(norm: str, key: str) -> Part:
    """Declare how well one reading ranks inputs by their measured distance."""
    words, read = PREDICTORS[key]
    chapter = "robustness" if norm == "l2" else "attack"
    rule = f"Spearman ρ with the measured distance, {words}; bootstrap over examples"

    @measure(f"input.distance_{norm}.rank_{key}", chapter=chapter, unit="1", estimator=rule, better="larger")
    @truth()
    def rank(study: InputStudy) -> Value | None:
        """How well a reading of the metric ranks inputs by how easily they are flipped."""
        attack = _found(study, norm)
        if attack is None or study.reading is None:
            return None
        missed = int(attack.distance.isinf().sum())
        note = f"none found for {missed} examples: counted as farthest" if missed else ""
        distance = attack.distance.cpu().numpy()
        rho, ends = spearman(read(study.reading, norm).cpu().numpy(), distance, study.seed)
        return Value(rho, len(distance), ends, note=note)

    return rank


@measure(
    "input.certified",
    chapter="robustness",
    unit="input units",
    estimator="median radius of unchanged decisions: gap over √2 × the product of the layers' norms",
    better="larger",
)
@truth()
def certified(study: InputStudy) -> Value | Absent:
    """Radius within which no step changes the decision, proven."""
    return study.certified if isinstance(study.certified, Absent) else _median(study.certified[0], study)


def _median(each: Tensor, study: InputStudy) -> Value:
    values = each.cpu().numpy()
    middle, ends = bootstrap_median(values, study.seed)
    return Value(middle, len(values), ends)


def _corruption_rank(corruption: str, key: str) -> Part:
    """Declare how well a reading, or an attack, ranks inputs by the corruption that they withstand."""
    words = "the measured smallest perturbation" if key == "attack" else PREDICTORS[key][0]
    rule = f"Spearman ρ of {words} with the first severity of {corruption} that changes the decision"
    chapter = "robustness" if key == "linear" else "attack"

    @measure(f"input.{corruption}.rank_{key}", chapter=chapter, unit="1", estimator=rule, better="larger")
    @truth()
    def rank(study: InputStudy) -> Value | None:
        """How well distances rank inputs by the corruption they withstand."""
        met = next((c for c in study.corruptions if c.corruption.name == corruption), None)
        if met is None or study.reading is None or study.found is None:
            return None
        predicted = study.found.distance if key == "attack" else PREDICTORS[key][1](study.reading, "l2")
        return _ranked(predicted.cpu().numpy(), met, study.seed)

    return rank


def _ranked(predicted: np.ndarray, met: Corrupted, seed: int) -> Value:
    first = met.first.cpu().numpy()
    rho, ends = spearman(predicted, first, seed)
    known = math.isfinite(rho)
    note = "" if known else "no example's decision changes earlier than another's"
    return Value(rho, len(first), ends, reliable=known, note=note)


_RANKS = tuple(_corruption_rank(c.name, key) for c in CORRUPTIONS for key in ("linear", "fisher", "attack"))
INPUT_MEASURES: tuple[Part, ...] = (
    input_sensitivity,
    input_trace,
    input_step_ratio,
    *_distance_measures("l2"),
    *_distance_measures("max"),
    certified,
    *_RANKS,
)


def study_inputs(task: Task, settings: AttackSettings, progress: Progress | None = None) -> InputStudy:
    """Read the metric at inputs, attack and corrupt them, and compare example by example.

    Args:
        task: inputs are drawn from its test data, or from the training data where there are none.
        settings: how many inputs, and how hard to search.
        progress: where the work reports.

    Returns:
        what was found, with measurements and what is absent.
    """
    study = probed_inputs(task, settings, progress or Silent())
    measurements, unmeasured = Workspace({Task: task, InputStudy: study}).measure_all(INPUT_MEASURES)
    return replace(study, measurements=measurements, unmeasured=unmeasured)
