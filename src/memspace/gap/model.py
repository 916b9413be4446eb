"""The calibrated model: gap and test loss of a network from its measures, with an interval, or why not to trust it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from memspace.errors import DataError
from memspace.gap.conformal import interval_of
from memspace.gap.domain import Domain, NetworkFacts, outside
from memspace.gap.line import Line
from memspace.gap.predictors import TRAIN_LOSS, on_scale

__all__ = ["LOG_RATIO", "LOSS_GAP", "GapModel", "GapPrediction", "Tier", "losses_of"]

Floats = NDArray[np.float64]
LOSS_GAP, LOG_RATIO = "test loss − training loss", "log(test loss/training loss)"
WHERE = "expected gap"
SHOWN = 5  # predictors that are named as what drives a prediction


@dataclass(frozen=True)
class GapPrediction:
    """What to expect of a network.

    Args:
        gap: test loss less the training loss at the moment that it is told, nats per prediction.
        test_loss: nats per prediction.
        gap_interval: its ends; infinite where the calibration has too few groups for the level.
        test_loss_interval: likewise.
        level: of the intervals: the share of networks of groups never seen that they are to hold.
        guaranteed: the share that they hold whatever the distribution, if groups are exchangeable.
        tier: of the predictors it was told by.
        drivers: predictor → its part in the prediction, in the unit of ``target``, the largest first.
        target: what the line tells.
        networks: of the calibration.
        groups: that these came in.
        moment: share of the training at which it is told; the test loss is that at the end of the training.
        reliable: False where the network lies outside of what was calibrated, or the groups are too few.
        note: one sentence that says why.
    """

    gap: float
    test_loss: float
    gap_interval: tuple[float, float]
    test_loss_interval: tuple[float, float]
    level: float
    guaranteed: float
    tier: str
    drivers: Mapping[str, float]
    target: str
    networks: int
    groups: int
    moment: float = 1.0
    reliable: bool = True
    note: str = ""

    @property
    def how(self) -> str:
        """What the interval is and rests on."""
        early = "" if self.moment == 1 else f"; told at {self.moment:.0%} of the training, for its end"
        return (
            f"{self.level:.0%} interval for groups never seen (at least {self.guaranteed:.0%} whatever the "
            f"distribution), calibrated on {self.networks} networks in {self.groups} groups{early}"
        )

    def to_dict(self) -> dict[str, Any]:
        """Give plain JSON types.

        Returns:
            The fields; infinite ends become None.
        """
        ends = {n: [e if math.isfinite(e) else None for e in getattr(self, n)] for n in _INTERVALS}
        return {**self.__dict__, "drivers": dict(self.drivers), **ends}


_INTERVALS = ("gap_interval", "test_loss_interval")


@dataclass(frozen=True)
class Tier:
    """The line through predictors that a network may have, and its errors on groups left out.

    Args:
        name: of ``memspace.gap.predictors.TIERS``.
        predictors: used, in order.
        target: ``LOSS_GAP`` or ``LOG_RATIO``: what the line tells.
        whole: fitted on all groups.
        folds: each fitted without one group.
        scores: group by group |error| over spread of its networks, by the line without it.
        domain: where its networks lie.
    """

    name: str
    predictors: tuple[str, ...]
    target: str
    whole: Line
    folds: tuple[Line, ...]
    scores: tuple[tuple[float, ...], ...]
    domain: Domain

    def scaled(self, measures: Mapping[str, float]) -> Floats:
        """Put a network's measures on their scales.

        Args:
            measures: by name.

        Returns:
            (1, p), NaN where one is absent or not on its scale.
        """
        values = [on_scale(np.array([measures.get(p, math.nan)], np.float64), p)[0] for p in self.predictors]
        return np.array([values])

    def target_interval(self, x: Floats, level: float) -> tuple[float, float]:
        """Compute the interval of what the line tells.

        Args:
            x: (1, p).
            level: of it.

        Returns:
            Its ends.
        """
        predicted = [float(line.values(x)[0]) for line in self.folds]
        spread = [float(line.errors(x)[0]) for line in self.folds]
        return interval_of(predicted, spread, [np.array(s) for s in self.scores], level)


@dataclass(frozen=True)
class GapModel:
    """A calibration: lines through predictors, errors on groups left out, and the range of its networks.

    Args:
        tiers: the richest first.
        level: of the intervals.
        group: column whose values were left out.
        groups: the values, in order.
        networks: that it was calibrated on.
        left_out: predictor → why it is not used.
        moment: share of the training at which the networks were measured; the test loss is that at the end.
        settings: of the measures, by which a network must be measured.
        store: digest of the networks' store; empty: of a table alone.
        version: of memspace.
    """

    tiers: tuple[Tier, ...]
    level: float
    group: str
    groups: tuple[str, ...]
    networks: int
    left_out: Mapping[str, str]
    moment: float
    settings: Mapping[str, Any]
    store: str
    version: str

    @property
    def predictors(self) -> tuple[str, ...]:
        """All that some tier uses, and the training loss."""
        return tuple(dict.fromkeys((TRAIN_LOSS, *(p for tier in self.tiers for p in tier.predictors))))

    def predict(self, measures: Mapping[str, float], facts: NetworkFacts) -> GapPrediction:
        """Predict gap and test loss of a network.

        Args:
            measures: by name, measured as those of the calibration.
            facts: what else the domain is about.

        Returns:
            The prediction; not reliable, with one sentence, where the network lies outside.

        Raises:
            DataError: it lacks a number that the smallest tier needs.
        """
        train = measures.get(TRAIN_LOSS, math.nan)
        if not 0 < train < math.inf:
            raise DataError("the network has no training loss above zero", where=WHERE, remedy="read a classifier")
        for tier in self.tiers:
            x = tier.scaled(measures)
            if np.isfinite(x).all():
                return self._by(tier, x, train, facts)
        absent = [p for p, v in zip(self.tiers[-1].predictors, x[0], strict=True) if not math.isfinite(v)]
        raise DataError(
            f"the network has no {absent[0]} that the calibration can use",
            where=WHERE,
            remedy="calibrate without it, or read a trained classifier",
        )

    def _by(self, tier: Tier, x: Floats, train: float, facts: NetworkFacts) -> GapPrediction:
        value = float(tier.whole.values(x)[0])
        ends = tier.target_interval(x, self.level)
        test, low, high = (losses_of(t, tier.target, train) for t in (value, *ends))
        parts = np.array(tier.whole.weights) * (x[0] - np.array(tier.whole.centre))
        strongest = sorted(zip(tier.predictors, map(float, parts), strict=True), key=lambda p: -abs(p[1]))[:SHOWN]
        distance = float(tier.whole.distances(x)[0])
        why = outside(tier.domain, dict(zip(tier.predictors, x[0], strict=True)), train, distance, facts)
        if not math.isfinite(high):
            why = why or f"{len(self.groups)} groups are too few for an interval of {self.level:.0%}"
        return GapPrediction(
            test - train,
            test,
            (low - train, high - train),
            (low, high),
            self.level,
            max(0.0, 2 * self.level - 1),
            tier.name,
            dict(strongest),
            tier.target,
            self.networks,
            len(self.groups),
            self.moment,
            not why,
            why,
        )


def losses_of(value: float, target: str, train: float) -> float:
    """Compute the test loss from what a line tells.

    Args:
        value: of the target.
        target: ``LOSS_GAP`` or ``LOG_RATIO``.
        train: training loss, nats.

    Returns:
        Nats, zero or more.
    """
    if target == LOG_RATIO:
        return train * math.exp(value) if value < 700 else math.inf
    return max(0.0, train + value)
