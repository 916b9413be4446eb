"""Confidence on training data: outputs set by hand, and the temperature in closed form."""

from __future__ import annotations

import math

import numpy as np
import pytest

from memspace.measures.predictors.workspace import workspace_of
from tests.predictors.networks import gated, measured, measures, transformer
from tests.predictors.test_margins import fixed


def test_two_kinds_of_predictions_known_by_heart():
    outputs = [[math.log(0.8), math.log(0.2)]] * 15 + [[math.log(0.4), math.log(0.6)]] * 5
    made = measured(workspace_of(fixed(outputs, [0] * 20)), "confidence.")
    assert made["confidence.mean"].value == pytest.approx((15 * 0.8 + 5 * 0.6) / 20)
    entropies = [-sum(p * math.log(p) for p in law) for law in ((0.8, 0.2), (0.4, 0.6))]
    assert made["confidence.entropy"].value == pytest.approx((15 * entropies[0] + 5 * entropies[1]) / 20)
    halves = [(15, math.log(4) / 2), (5, math.log(1.5) / 2)]  # f less its mean is ± half the log-odds
    size = math.sqrt(sum(n * h**2 for n, h in halves) / 20)
    assert made["confidence.logit_gain"].value == pytest.approx(math.log(size))


@pytest.mark.parametrize("gain", [0.1, 1.0, 10.0])
@pytest.mark.parametrize("right", [12, 16, 19])
def test_the_temperature_makes_the_odds_those_of_being_right(gain, right):
    # All margins are ± gain: the loss is least where σ(gain/T) is the share of right predictions.
    task = fixed([[gain, 0.0]] * 20, [0] * right + [1] * (20 - right))
    made = measured(workspace_of(task), "confidence.temperature")["confidence.temperature"]
    assert made.value == pytest.approx(gain / math.log(right / (20 - right)), rel=1e-5)


def test_temperatures_that_do_not_exist_say_why():
    def reason(right):
        task = fixed([[1.0, 0.0]] * 20, [0] * right + [1] * (20 - right))
        return workspace_of(task).measure_all(measures("confidence.temperature"))[1][0].reason

    assert "every training example is right" in reason(20)
    assert "no finite temperature" in reason(5)


def test_the_spread_over_classes_is_of_their_mean_losses():
    outputs = [[1.0, 0.0]] * 3 + [[0.0, 3.0]] * 4 + [[0.0, 1.0]] * 2
    made = measured(workspace_of(fixed(outputs, [0] * 3 + [1] * 6)), "confidence.class_spread")
    loss = [math.log1p(math.exp(-g)) for g in (1.0, 3.0)]
    means = [loss[0], (4 * loss[1] + 2 * loss[0]) / 6]
    assert made["confidence.class_spread"].value == pytest.approx(np.std(means))


@pytest.mark.parametrize("make", [gated, transformer])
def test_sequences_count_by_position_and_their_intervals_by_sequence(make):
    made = measured(workspace_of(make(0)), "confidence.")
    assert made["confidence.mean"].n == made["confidence.entropy"].n == 8 * make(0).train.batch([0]).y.numel()
    assert made["confidence.calibration_error"].interval is None
