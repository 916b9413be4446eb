"""Robustness: how far weights and inputs may move, each predicted and measured."""

from __future__ import annotations

import numpy as np

from memspace.auditing.chapter import ChapterDeclaration
from memspace.auditing.chapters.inputs import (
    SHOWN_INPUT_MEASURES,
    easily_flipped,
    input_figures,
    linearised_rank,
    sentence_on_inputs,
)
from memspace.auditing.chapters.rounding import bits_needed, layer_figure, weakest_layer
from memspace.auditing.results import Figure, Series
from memspace.measures import weight_noise as measures
from memspace.measures.robustness import NoiseCurve, departure
from memspace.measures.rounded_weights import ROUNDING_MEASURES
from memspace.measures.weight_noise import PREDICTED, SMALL
from memspace.measures.workspace import Measured
from memspace.task.task import Task

__all__ = ["ROBUSTNESS"]


def answer(measured: Measured) -> str:
    """Say how much noise costs 1% accuracy and how far the second order holds; then what is known of inputs."""
    if "robustness.kl_ratio_small" not in measured:
        return f"The cost of noise in the weights could not be measured.{sentence_on_inputs(measured)}"
    sigma = measured.get("robustness.sigma_one_percent")
    limit = measured.get("robustness.second_order_limit")
    noise = "" if sigma is None else f"A noise of σ = {sigma.value:.2g} on every weight costs 1% accuracy. "
    agree = (
        "the two agree over the whole range tried"
        if limit is None
        else f"the two differ by more than 10% where more than {limit.value:.2g} nats are predicted"
    )
    ratio = measured["robustness.kl_ratio_small"].value
    return (
        f"{noise}At a predicted {PREDICTED[SMALL]} nats the measured divergence is {ratio:.2f} times the "
        f"second-order prediction; {agree}.{sentence_on_inputs(measured)}"
    )


def noise_figures(task: Task, curve: NoiseCurve) -> tuple[Figure, ...]:
    """Draw divergence, and where there are classes accuracy, against the noise."""
    divergence = _divergence(curve)
    if not task.likelihood.classifies:
        return (divergence,)
    accuracy, half = curve.accuracy, curve.accuracy_margin
    low, high = (accuracy - half).tolist(), (accuracy + half).tolist()
    falls = Figure(
        "noise-accuracy",
        "Accuracy under weight noise",
        f"Mean over {curve.draws} draws with a 95% band.",
        "σ of the noise",
        "accuracy",
        (Series("accuracy", curve.sigma.tolist(), accuracy.tolist(), low=low, high=high),),
        "log",
    )
    return divergence, falls


def _divergence(curve: NoiseCurve) -> Figure:
    sigma, half, off = curve.sigma.tolist(), curve.kl_margin, departure(curve).value
    marks = () if off is None else ((float(np.sqrt(off / curve.predicted[0]) * sigma[0]), "second order is 10% off"),)
    low, high = (curve.kl - half).clip(1e-12).tolist(), (curve.kl + half).tolist()
    return Figure(
        "weight-noise",
        "Weight noise: predicted and measured",
        "KL from the network to its noisy copy: ½σ² tr F against measurement with a 95% band.",
        "σ of the noise",
        "KL (nats)",
        (
            Series("predicted ½σ² tr F", sigma, curve.predicted.tolist()),
            Series("measured", sigma, curve.kl.tolist(), low=low, high=high),
        ),
        "log",
        "log",
        marks,
    )


ROBUSTNESS = ChapterDeclaration(
    id="robustness",
    title="Robustness",
    question="How much may weights and inputs change before predictions do?",
    answer=answer,
    measures=(
        measures.ratio_at_small_noise,
        measures.second_order_limit,
        measures.noise_at_one_percent,
        *ROUNDING_MEASURES,
        *SHOWN_INPUT_MEASURES,
    ),
    findings=(bits_needed, weakest_layer, linearised_rank),
    figures=(noise_figures, layer_figure, input_figures),
    galleries=(easily_flipped,),
)
