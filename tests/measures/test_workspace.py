"""Values are made once, and what is absent says why to whom it concerns."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
import torch
from torch import nn

import memspace
from memspace.measures import judge
from memspace.measures.declaration import declaration_of, measure, measurement_of, provides
from memspace.measures.workspace import Measured, Workspace
from memspace.value import Absent, Value


@dataclass(frozen=True)
class Length:
    metres: float


@dataclass(frozen=True)
class Area:
    square_metres: float


made: list[float] = []


@provides()
def area(length: Length) -> Area:
    """Square a length."""
    made.append(length.metres)
    return Area(length.metres**2)


@measure("test.area", chapter="none", unit="m²", estimator="square")
def side_squared(area: Area) -> Value:
    """Area of a square."""
    return Value(area.square_metres, 1, how="of its side")


@measure("test.twice", chapter="none", unit="m²", estimator="sum")
def twice(area: Area, measured: Measured) -> Value:
    """Area of two squares."""
    return Value(2 * area.square_metres, len(measured))


def why(length: Length | Absent) -> str:
    return length.reason if isinstance(length, Absent) else "there"


def without(length: Length | None) -> bool:
    return length is None


def test_a_value_that_two_measures_share_is_made_once():
    made.clear()
    workspace = Workspace({Length: Length(3.0)})
    (first,) = workspace.measure(declaration_of(side_squared), Measured(()))
    (second,) = workspace.measure(declaration_of(twice), Measured([first]))
    assert (first.value, second.value, second.n) == (9.0, 18.0, 1)
    assert made == [3.0]


def test_what_is_absent_makes_measures_absent_for_its_reason_and_is_told_to_those_who_ask():
    workspace = Workspace({Length: Absent("nothing was measured", "measure it")})
    (absent,) = workspace.measure(declaration_of(side_squared), Measured(()))
    assert (absent.name, absent.reason, absent.remedy) == ("test.area", "nothing was measured", "measure it")
    assert workspace.call(why, "why") == "nothing was measured"
    assert workspace.call(without, "without") is True
    assert Workspace({Length: Length(1.0)}).call(why, "why") == "there"


def test_a_value_outside_an_audit_gets_the_name_unit_and_estimator_of_its_measure():
    found = measurement_of(side_squared, Value(4.0, 1, how="of its side"))
    assert (found.name, found.value, found.unit, found.estimator) == ("test.area", 4.0, "m²", "square; of its side")


def test_where_judging_labels_fails_the_audit_goes_on_and_says_so(monkeypatch: pytest.MonkeyPatch):
    def fails(*_: object) -> None:
        raise RuntimeError("no noise model today")

    monkeypatch.setattr(judge, "fit_label_model", fails)
    x = torch.randn(40, 3, generator=torch.Generator().manual_seed(0))
    torch.manual_seed(0)
    results = memspace.audit(nn.Linear(3, 2), (x, (x[:, 0] > 0).long()))
    absent = {u.name: u.reason for c in results.chapters for u in c.unmeasured}
    assert "no noise model today" in absent["labels.noise"]
    assert results.measurement("memory.self_influence").value > 0
    assert results.measurement("generalisation.loo_estimate").value > 0
