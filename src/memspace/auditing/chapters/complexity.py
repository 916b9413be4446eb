"""Complexity: how much the network has taken in."""

from __future__ import annotations

import math

import numpy as np
import torch

from memspace.auditing.chapter import ChapterDeclaration
from memspace.auditing.claims import above, below
from memspace.auditing.results import Figure, Finding, Series
from memspace.auditing.thresholds import LABELS_COMPRESSED
from memspace.measures import complexity as measures
from memspace.measures.complexity import GAINS, DescriptionLength, NormByGain, information_bits
from memspace.measures.damping import DampingChoice
from memspace.measures.values import Curvature
from memspace.measures.workspace import Measured
from memspace.passes.space import ParameterSpace
from memspace.task.task import Task

__all__ = ["COMPLEXITY"]

SAVED = "complexity.labels_compressed"


def answer(measured: Measured, space: ParameterSpace) -> str:
    """Say how many bits are held, in how many of the parameters."""
    bits = measured["complexity.information"].value
    effective = measured["complexity.effective_parameters"].value
    return (
        f"At the chosen damping it holds {bits:,.0f} bits in {effective:,.0f} effective parameters of "
        f"{space.size:,}, {bits / space.size:.2g} bits per parameter."
    )


def damping_figure(curvature: Curvature, damping: DampingChoice) -> Figure:
    """Draw information and effective parameters against the damping."""
    metric, used = curvature.metric, damping.value
    grid = np.logspace(math.log10(used) - 3, math.log10(used) + 3, 25)
    bits = [information_bits(metric, float(g)) for g in grid]
    effective = [metric.effective_dimension(float(g)).value for g in grid]
    return Figure(
        "damping-effect",
        "What the damping does",
        "Information held and effective parameters against the damping; the line marks the damping used.",
        "damping γ (nats)",
        "bits, parameters",
        (
            Series("information (bits)", grid.tolist(), bits),
            Series("effective parameters", grid.tolist(), effective),
        ),
        "log",
        "log",
        ((used, "used"),),
    )


def gain_figure(by_gain: NormByGain) -> Figure:
    """Draw the Fisher–Rao norm against the gain of the last layer."""
    return Figure(
        "gain",
        "The gain trap",
        "Multiplying the last layer changes no prediction, yet changes the Fisher–Rao norm this much: compare networks only at matched cross-entropy.",
        "gain of the last layer",
        "θᵀFθ (nats)",
        (Series("Fisher–Rao norm", GAINS.tolist(), by_gain.norms.tolist()),),
        "log",
        "log",
        ((1.0, "as trained"),),
    )


def compression(task: Task, length: DescriptionLength) -> Finding | None:
    """Say whether the network saves more bits on the labels than its weights cost."""
    if not math.isfinite(length.saved):
        return None
    title = f"Describing the labels takes {length.saved:.0%} fewer bits with the network than without"
    if task.likelihood.scale(torch.zeros(())) is not None:
        title = f"After paying for its weights the network explains {length.saved:.0%} of the targets' variance"
    costs_more = Finding(
        "warn",
        "The network costs more bits than it saves on its labels",
        length.evidence,
        "It stores examples one by one rather than a rule for them: try more data, stronger decay or a smaller network.",
        "complexity",
        claims=(below(SAVED, 0.0),),
    )
    level = "good" if length.saved > LABELS_COMPRESSED else "note"
    claims = (above(SAVED, 0.0),)
    return Finding(level, title, length.evidence, "Nothing to do.", "complexity", claims=claims, otherwise=costs_more)


def damping_note(damping: DampingChoice) -> str:
    """Say how the damping was chosen."""
    return f"{damping.statement}."


COMPLEXITY = ChapterDeclaration(
    id="complexity",
    title="Complexity",
    question="How much has the network taken in, counted four ways?",
    answer=answer,
    measures=(
        measures.norm_of_weights,
        measures.empirical_norm_of_weights,
        measures.information,
        measures.effective_parameters,
        measures.distance_from_null,
        measures.bits_with_network,
        measures.bits_without_network,
        measures.distance_from_initialisation,
        measures.range_over_gains,
        measures.labels_compressed,
    ),
    findings=(compression,),
    figures=(damping_figure, gain_figure),
    notes=(damping_note,),
)
