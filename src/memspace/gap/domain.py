"""Where the networks of a calibration lie, and what about another network lies outside."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from memspace.gap.predictors import PREDICTORS, TRAIN_LOSS

__all__ = ["LOSS_FACTOR", "Domain", "NetworkFacts", "outside"]

BEYOND = 0.1  # of a predictor's range, by which a network may leave it
LOSS_FACTOR = 1.25  # within which the nearest training loss of the calibration must be


@dataclass(frozen=True)
class NetworkFacts:
    """What a network is, apart from its measures.

    Args:
        law: name of its output law.
        outputs: number of classes or tokens.
        sequence: whether an example has several positions.
    """

    law: str
    outputs: int
    sequence: bool = False


@dataclass(frozen=True)
class Domain:
    """Where the networks of a calibration lie.

    Args:
        low: least value of each predictor, on its scale.
        high: largest value.
        losses: training losses, rounded to three digits, each once, nats.
        outputs: least and largest number of outputs.
        sequences: whether there are networks with several positions an example, and such with one.
        law: name of the output law of all.
        farthest: largest distance of a network from the other groups' networks, squared (Mahalanobis).
    """

    low: tuple[float, ...]
    high: tuple[float, ...]
    losses: tuple[float, ...]
    outputs: tuple[int, int]
    sequences: tuple[bool, ...]
    law: str
    farthest: float


def outside(domain: Domain, scaled: Mapping[str, float], loss: float, distance: float, facts: NetworkFacts) -> str:
    """Say what about a network lies outside of the calibration.

    Args:
        domain: of the calibration.
        scaled: its predictors on their scales, in the order of the domain.
        loss: training loss, nats.
        distance: squared, from the networks of the calibration.
        facts: output law, number of outputs, sequence or not.

    Returns:
        One sentence without a full stop that names everything outside; empty where nothing is.
    """
    parts = []
    if facts.law != domain.law:
        parts.append(f"the output law {facts.law} (calibrated: {domain.law})")
    if facts.sequence not in domain.sequences:
        parts.append("predictions at every position" if facts.sequence else "one prediction an example")
    low, high = domain.outputs
    if not low <= facts.outputs <= high:
        parts.append(f"{facts.outputs} outputs (calibrated: {low} to {high})")
    if min(abs(math.log(loss / one)) for one in domain.losses) > math.log(LOSS_FACTOR):
        nearest = min(domain.losses, key=lambda one: abs(math.log(loss / one)))
        parts.append(f"a training loss of {loss:.3g} (the nearest calibrated one: {nearest:.3g})")
    for (name, value), least, most in zip(scaled.items(), domain.low, domain.high, strict=True):
        room = BEYOND * (most - least)
        if name != TRAIN_LOSS and not least - room <= value <= most + room:
            parts.append(f"{name} {_plain(name, value)} (calibrated: {_plain(name, least)} to {_plain(name, most)})")
    if not parts and distance > domain.farthest:
        parts.append(
            f"measures in a combination farther from the calibration's networks (d² {distance:.3g}) than they are "
            f"from one another's groups ({domain.farthest:.3g})"
        )
    return f"outside of what was calibrated: {', '.join(parts)}" if parts else ""


def _plain(name: str, value: float) -> str:
    return f"{math.exp(value) if PREDICTORS[name] == 'log' else value:.3g}"
