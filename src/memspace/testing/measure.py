"""The contract of a declared measure: complete, pure, honest about its interval, and absent where a need is."""

from __future__ import annotations

import math
import re
import warnings
from collections.abc import Callable, Mapping
from typing import Any

import torch

from memspace.auditing.read import read_task
from memspace.bibliography import works
from memspace.measurement import Measurement, Unmeasured
from memspace.measures.cost import Facts, Stage
from memspace.measures.declaration import MeasureDeclaration, declaration_of, provider_of
from memspace.measures.needs import needs_of
from memspace.measures.workspace import Measured, Workspace
from memspace.task.task import Task
from memspace.value import Absent

__all__ = ["check_measure"]

NAME = re.compile(r"[a-z0-9_\-]+(\.[A-Za-z0-9_\-]+)*")
KEY = re.compile(r"\b[a-z]+[0-9]{4}[a-z]?\b")  # a key of the bibliography; other text names a work in words
WHY = Absent("left out on purpose", "nothing")


def check_measure(
    function: Callable[..., Any], task: Task, values: Mapping[type, object] | None = None
) -> tuple[Measurement | Unmeasured, ...]:
    """Check a declared measure on a task.

    Args:
        function: declared by ``memspace.measures.declaration.measure``.
        task: a small one, on which the measure applies.
        values: further values that the measure needs and nothing provides, by type.

    Returns:
        what it measured on the task.

    Raises:
        AssertionError: the first thing that does not hold, in one sentence.
    """
    declared = declaration_of(function)
    assert isinstance(declared, MeasureDeclaration), f"{function.__qualname__} is not declared by @measure"
    _check_words(declared)
    before = {name: tensor.clone() for name, tensor in task.model.state_dict().items()}
    random = torch.get_rng_state()
    workspace, plan = read_task(task)
    inputs = {**workspace.given, **(values or {})}
    _check_needs(declared, inputs)
    assert plan.facts is not None
    _check_cost(declared, plan.facts)
    first, second = (Workspace(inputs).measure(declared, Measured(())) for _ in range(2))
    assert first, f"{declared.name} says nothing about this task: give one on which it applies"
    assert _same(first, second), f"{declared.name} gives other numbers when it is made again: {first} and {second}"
    for quantity in first:
        if isinstance(quantity, Measurement):
            _check_interval(quantity)
    after = task.model.state_dict()
    changed = [name for name, tensor in before.items() if not torch.equal(tensor, after[name])]
    assert not changed, f"{declared.name} changes the model: {', '.join(changed)}"
    assert torch.equal(random, torch.get_rng_state()), f"{declared.name} moves torch's random state: seed a generator"
    _check_absence(declared, inputs)
    return tuple(first)


def _check_words(declared: MeasureDeclaration) -> None:
    name = declared.name
    assert NAME.fullmatch(name), f"the name {name!r} is not made of lower-case words joined by dots"
    assert declared.meaning, f"{name} has no docstring: its first line is what the number means"
    unknown = [key for key in KEY.findall(declared.source) if key not in works()]
    assert not unknown, f"{name} cites {unknown[0]!r}, which the bibliography does not have"


def _check_needs(declared: MeasureDeclaration, given: Mapping[Any, object]) -> None:
    for parameter, need in needs_of(declared.function).items():
        known = need.kind in given or need.kind is Measured or provider_of(need.kind) is not None
        assert known, f"{declared.name} needs {need.kind.__name__} for {parameter}, which nothing provides"


def _check_cost(declared: MeasureDeclaration, facts: Facts) -> None:
    for stage in declared.stages(facts):
        assert isinstance(stage, Stage), f"the cost of {declared.name} holds a {type(stage).__name__}, not a Stage"
        numbers = (stage.examples, stage.forwards, stage.backwards, stage.memory, stage.work, stage.seconds)
        assert all(math.isfinite(x) and x >= 0 for x in numbers), f"the cost of {declared.name} is not a cost: {stage}"


def _check_interval(found: Measurement) -> None:
    assert found.n >= 1, f"{found.name} is computed from {found.n} examples"
    if found.interval is None or not math.isfinite(found.value):
        return
    low, high = found.interval
    inside = low <= found.value <= high
    assert inside, f"the interval of {found.name}, {low:.6g} to {high:.6g}, does not hold its value {found.value:.6g}"


def _check_absence(declared: MeasureDeclaration, given: Mapping[Any, object]) -> None:
    """Every need in turn is absent: what can't do without it says so, the rest goes on."""
    for parameter, need in needs_of(declared.function).items():
        if need.kind is Measured:
            continue
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", RuntimeWarning)  # the failure is reported below
            made = Workspace({**given, need.kind: WHY}).measure(declared, Measured(()))
        if need.optional:
            failed = [u for u in made if isinstance(u, Unmeasured) and u.reason.startswith("it failed with")]
            assert not failed, f"{declared.name} fails where {parameter} is absent: {failed[0].reason}"
            continue
        expected = [Unmeasured(declared.name, WHY.reason, WHY.remedy)]
        assert made == expected, f"{declared.name} is measured without {parameter}, which it needs: {made}"


def _same(first: list[Measurement | Unmeasured], second: list[Measurement | Unmeasured]) -> bool:
    return [str(a.to_dict()) for a in first] == [str(b.to_dict()) for b in second]
