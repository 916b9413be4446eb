"""A measure from outside: one file, and it is planned, measured, listed, shown and held to the contract."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from torch import nn

import memspace
from memspace.measures.cost import Stage
from memspace.measures.declaration import measure, provides
from memspace.measures.values import LeaveOneOutLosses, TrainingOutputs
from memspace.testing import check_measure
from memspace.value import Absent, Value
from tests.extension.outside import run_outside

OUTSIDE = '''
import torch
from dataclasses import dataclass

from memspace.measures.cost import Stage
from memspace.measures.declaration import measure, provides, table
from memspace.measures.values import TrainingOutputs
from memspace.passes.outputs import outputs
from memspace.task.task import Task
from memspace.value import Value


@dataclass(frozen=True)
class Shuffled:
    f: torch.Tensor


@provides(cost=lambda facts: Stage("shuffled weights", facts.n, 1, 0, 0, "outputs of shuffled weights"))
def shuffled(task: Task) -> Shuffled:
    """Shuffle every weight within its tensor."""
    generator = torch.Generator().manual_seed(0)
    state = {
        name: p.detach().flatten()[torch.randperm(p.numel(), generator=generator)].reshape(p.shape)
        for name, p in task.model.named_parameters()
    }
    return Shuffled(outputs(task, task.train, state=state)[0])


@measure(
    "robustness.shuffled_loss",
    chapter="robustness",
    unit="nats",
    estimator="mean training loss with shuffled weights",
    source="mackay1992",
    better="smaller",
)
def shuffled_loss(task: Task, training: TrainingOutputs, network: Shuffled) -> Value:
    """Loss that is left when every weight is in the wrong place."""
    return Value.mean(task.likelihood.nll(network.f.double(), training.y), lower=0.0)
'''

AUDIT = """
import json, torch, memspace
from torch import nn

torch.manual_seed(0)
x, y = torch.randn(60, 4), torch.randint(0, 3, (60,))
results = memspace.audit(nn.Linear(4, 3), (x, y), out="run")
found = results.measurement("robustness.shuffled_loss")
print(json.dumps({"measured": found.to_dict(), "plan": results.plan}))
"""


def test_a_measure_from_outside_is_measured_planned_and_shown(tmp_path: Path) -> None:
    done = run_outside(tmp_path, OUTSIDE, AUDIT)
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout.splitlines()[-1])
    found = told["measured"]
    assert found["unit"] == "nats"
    assert found["better"] == "smaller"
    assert found["n"] == 60
    assert found["interval"][0] < found["value"] < found["interval"][1]
    assert "shuffled weights" in told["plan"]
    assert "robustness.<wbr>shuffled" in (tmp_path / "run" / "report.html").read_text()


def test_a_measure_from_outside_is_listed(tmp_path: Path) -> None:
    done = run_outside(tmp_path, OUTSIDE, "-m memspace", "measures", "--json")
    assert done.returncode == 0, done.stderr
    listed = {m["name"]: m for m in json.loads(done.stdout)["measures"]}
    assert listed["robustness.shuffled_loss"]["meaning"].startswith("Loss that is left")
    assert listed["robustness.shuffled_loss"]["chapter"] == "robustness"


@pytest.fixture(scope="module")
def task() -> memspace.Task:
    torch.manual_seed(1)
    return memspace.Task(model=nn.Linear(4, 3), train=(torch.randn(40, 4), torch.randint(0, 3, (40,))))


def _rise(training: TrainingOutputs, left_out: LeaveOneOutLosses | None) -> Value | Absent:
    """Rise of the loss without each example."""
    if left_out is None:
        return Absent("no leave-one-out", "none")
    return Value.mean(left_out.loss - training.loss)


def test_a_sound_measure_keeps_the_contract(task: memspace.Task) -> None:
    declared = measure("test.sound", chapter="nowhere", unit="nats", estimator="mean")(_rise)
    (found,) = check_measure(declared, task)
    assert found.name == "test.sound"


def _random(training: TrainingOutputs) -> Value:
    """A number by chance."""
    return Value(float(torch.rand(())), training.n)


def _outside_its_interval(training: TrainingOutputs) -> Value:
    """A value beside its interval."""
    return Value(1.0, training.n, (2.0, 3.0))


def _moving(task: memspace.Task, training: TrainingOutputs) -> Value:
    """A measure that changes weights."""
    with torch.no_grad():
        next(task.model.parameters()).zero_()
    return Value(1.0, training.n)


def _silent(training: TrainingOutputs) -> Value:
    return Value(1.0, training.n)


class _Nothing:
    """A value that nobody provides."""


def _needy(nothing: _Nothing) -> Value:
    """A measure that needs it."""
    return Value(1.0, 1)


def _fragile(left_out: LeaveOneOutLosses | None) -> Value:
    """A measure that says it can do without, and cannot."""
    return Value.mean(left_out.loss)  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("function", "words", "said"),
    [
        (_random, {}, "gives other numbers when it is made again"),
        (_outside_its_interval, {}, "does not hold its value"),
        (_moving, {}, "changes the model"),
        (_silent, {}, "has no docstring"),
        (_needy, {}, "which nothing provides"),
        (_fragile, {}, "fails where left_out is absent"),
        (_rise, {"source": "nobody1900"}, "cites 'nobody1900'"),
        (_rise, {"cost": lambda facts: Stage("x", 1, -1, 0, 0, "y")}, "is not a cost"),
    ],
)
def test_a_broken_measure_is_told_what_is_wrong(function: object, words: dict[str, object], said: str) -> None:
    torch.manual_seed(1)
    task = memspace.Task(model=nn.Linear(4, 3), train=(torch.randn(40, 4), torch.randint(0, 3, (40,))))
    name = f"test.broken.{getattr(function, '__name__', '')}{len(words)}"
    declared = measure(name, chapter="nowhere", unit="nats", estimator="mean", **words)(function)  # type: ignore[arg-type,type-var]
    with pytest.raises(AssertionError, match=said):
        check_measure(declared, task)


def test_two_measures_of_one_name_and_two_providers_of_one_type_are_refused() -> None:
    measure("test.taken", chapter="nowhere", unit="1", estimator="one")(_rise)
    with pytest.raises(memspace.MemspaceError, match="it is declared by"):
        measure("test.taken", chapter="nowhere", unit="1", estimator="two")(_random)
    with pytest.raises(memspace.MemspaceError, match="better is one of"):
        measure("test.better", chapter="nowhere", unit="1", estimator="x", better="higher")(_rise)

    def first() -> _Nothing:
        return _Nothing()

    def second() -> _Nothing:
        return _Nothing()

    for function in (first, second):
        function.__annotations__["return"] = _Nothing
    provides()(first)
    with pytest.raises(memspace.MemspaceError, match="both provide _Nothing"):
        provides()(second)
