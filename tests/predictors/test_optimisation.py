"""Speed of training, from curves written by hand."""

from __future__ import annotations

import math

import pytest

from memspace.measures.predictors.values import TrainingCurve
from memspace.measures.predictors.workspace import workspace_of
from tests.predictors.networks import measured, measures, perceptron


def made(curve):
    return measured(workspace_of(perceptron(0), curve), "optimisation.")


def test_a_straight_curve_is_known_by_heart():
    curve = TrainingCurve(tuple(range(0, 101, 10)), tuple(2.0 - 0.01 * s for s in range(0, 101, 10)), 80, 5.0)
    numbers = made(curve)
    assert numbers["optimisation.steps"].value == pytest.approx(math.log(80))
    assert numbers["optimisation.epochs"].value == pytest.approx(math.log(4.0))  # 20 steps an epoch
    assert numbers["optimisation.loss_sum"].value == pytest.approx(1.5 * 5)  # mean loss 1.5 over 5 epochs
    assert numbers["optimisation.slope"].value == pytest.approx(-0.2)  # 0.01 a step


def test_the_sum_does_not_depend_on_how_often_a_straight_curve_was_evaluated():
    rare = TrainingCurve((0, 100), (2.0, 1.0), None, 5.0)
    often = TrainingCurve((0, 7, 50, 51, 100), tuple(2.0 - 0.01 * s for s in (0, 7, 50, 51, 100)), None, 5.0)
    assert made(rare)["optimisation.loss_sum"].value == pytest.approx(made(often)["optimisation.loss_sum"].value)


def test_the_slope_is_of_the_last_quarter():
    loss = [5.0, 4.0, 3.0, 2.0, 1.0, 0.9, 0.8, 0.7]
    curve = TrainingCurve(tuple(range(10, 90, 10)), tuple(loss), 80, 8.0)
    assert made(curve)["optimisation.slope"].value == pytest.approx(-0.1)


def test_a_target_that_was_not_reached_has_no_time():
    curve = TrainingCurve((0, 10), (2.0, 1.9), None, 1.0)
    _, unmeasured = workspace_of(perceptron(0), curve).measure_all(measures("optimisation."))
    assert {u.name for u in unmeasured} == {"optimisation.steps", "optimisation.epochs"}
    assert {u.reason for u in unmeasured} == {"the training did not reach its target"}


def test_one_evaluation_is_no_curve():
    _, unmeasured = workspace_of(perceptron(0), TrainingCurve((10,), (0.1,), 10, 1.0)).measure_all(
        measures("optimisation.")
    )
    assert {u.name for u in unmeasured} == {"optimisation.loss_sum", "optimisation.slope"}
