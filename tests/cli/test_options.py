"""Every option is declared once: functions of few arguments, and the same defaults and limits as in Python."""

from __future__ import annotations

import importlib
import inspect
import pkgutil
import typing
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Annotated, Any

import pytest

from memspace import cli, commands
from memspace.commands.declaration import declared, takes_options
from memspace.commands.options import Output, TaskOptions, option
from memspace.errors import SettingsError
from memspace.limits import COUNT, Limit

MOST = 8
MODULES = [
    cli,
    *(importlib.import_module(f"memspace.commands.{m.name}") for m in pkgutil.iter_modules(commands.__path__)),
]


def _functions(module: Any) -> list[Any]:
    """Functions and methods written in a module; not the constructors that dataclasses are given."""
    own = [f for f in vars(module).values() if getattr(f, "__module__", "") == module.__name__]
    methods = [f for kind in own if inspect.isclass(kind) for f in vars(kind).values()]
    return [f for f in (*own, *methods) if inspect.isfunction(f) and f.__name__ != "__init__"]


@pytest.mark.parametrize("module", MODULES, ids=lambda m: m.__name__)
def test_no_function_takes_more_than_eight_arguments(module: Any) -> None:
    many = {f.__qualname__: len(inspect.signature(f).parameters) for f in _functions(module)}
    assert {name: count for name, count in many.items() if count > MOST} == {}


def _described() -> dict[str, set[tuple[str, str]]]:
    """Every option's help with the annotated type, by name, over all commands."""
    found: dict[str, set[tuple[str, str]]] = {}
    for made in declared():
        for name, parameter in inspect.signature(made.run).parameters.items():
            value = typing.get_args(parameter.annotation)[0]
            found.setdefault(name, set()).add((str(value), str(_info(parameter).help)))
    return found


@pytest.mark.parametrize(
    "name",
    ["task", "data_root", "label_noise", "seed", "device", "weights", "run", "parameters", "damping", "memory"],
)
def test_one_name_has_one_meaning(name: str) -> None:
    named = _described()[name]
    if name == "run":
        named = {d for d in named if "results.json" not in d[1]}  # the argument of `memspace report`
    assert len(named) == 1, named


FILLS = [
    ("audit", "memspace.auditing.settings:AuditSettings", ("damping", "representation", "refits", "capacity", "seed")),
    ("influence", "memspace.attribution.settings:InfluenceSettings", ("retrainings", "seed")),
    ("attack", "memspace.measures.input_study:AttackSettings", ("examples", "clip", "seed")),
    ("attack", "memspace.measures.attack:AttackSearch", ("steps", "restarts")),
    ("capacity", "memspace.experiments.capacity:CapacitySettings", ("seeds", "steps", "seed")),
    ("compare", "memspace.auditing.compare:CompareSettings", ("align", "examples", "effort", "seed")),
    ("prune", "memspace.measures.compensated:PruneSettings", ("objective", "seed")),
    (
        "retrain",
        "memspace.experiments.retrain:RetrainSettings",
        ("subsets", "seeds", "queries", "together", "repeats", "networks", "seed"),
    ),
    (
        "action",
        "memspace.experiments.action_settings:StudySettings",
        ("train", "valid", "test", "steps", "seeds", "tuning"),
    ),
    ("distil", "memspace.editing.distil:DistilSettings", ("per_class", "steps", "iterations", "fixed")),
    ("write", "memspace.editing.write:WriteTarget", ("loss",)),
    ("capacity", "memspace.verbs.capacity:capacity", ("depth", "forgetting")),
    ("depth", "memspace.verbs.depth:depth", ("examples", "lens", "seed")),
    (
        "dissect",
        "memspace.reading.dissection:DissectSettings",
        ("examples", "shuffles", "rotations", "least", "ablate", "draws", "data", "seed"),
    ),
    ("duplicates", "memspace.auditing.duplicates:duplicates", ("within", "rate", "seed")),
    ("explain", "memspace.verbs.explain:explain", ("part", "output", "against", "position")),
    (
        "explain",
        "memspace.reading.explain_settings:ExplainSettings",
        ("top", "count", "baseline", "engine", "damping"),
    ),
    ("explain", "memspace.attribution.settings:InfluenceSettings", ("retrainings",)),
    ("forget", "memspace.editing.forget:forget", ("damping", "method", "steps", "seed")),
    ("invariants", "memspace.verbs.invariants:invariants", ("seed",)),
    ("labels", "memspace.verbs.labels:labels", ("folds", "repeats")),
    ("modes", "memspace.verbs.modes:modes", ("count", "rows", "seed")),
    ("prune", "memspace.verbs.prune:prune", ("keep", "method")),
    ("write", "memspace.editing.write:write", ("damping", "seed")),
]


def _limits(annotation: Any) -> tuple[Limit, ...]:
    return tuple(m for m in getattr(annotation, "__metadata__", ()) if isinstance(m, Limit))


@pytest.mark.parametrize(("command", "place", "names"), FILLS, ids=lambda p: p if isinstance(p, str) else "")
def test_defaults_and_limits_are_those_of_what_they_fill(command: str, place: str, names: tuple[str, ...]) -> None:
    module, _, name = place.partition(":")
    filled = getattr(importlib.import_module(module), name)
    own, hints = inspect.signature(filled).parameters, typing.get_type_hints(filled, include_extras=True)
    (run,) = (made.run for made in declared() if made.name == command)
    options = inspect.signature(run).parameters
    assert {n: options[n].default for n in names} == {n: own[n].default for n in names}
    limited = [n for n in names if _limits(hints[n])]
    assert {n: _limits(options[n].annotation) for n in limited} == {n: _limits(hints[n]) for n in limited}


@pytest.mark.parametrize(
    ("command", "name", "words"),
    [
        ("prune", "method", "memspace.measures.pruning:METHODS"),
        ("prune", "objective", "memspace.measures.objective:OBJECTIVES"),
        ("depth", "lens", "memspace.action.readout:LENSES"),
        ("forget", "method", "memspace.editing.solver:METHODS"),
        ("retrain", "part", "memspace.experiments.retrain:PARTS"),
        ("audit", "representation", "memspace.auditing.settings:REPRESENTATIONS"),
        ("explain", "baseline", "memspace.reading.line:BASELINES"),
        ("explain", "engine", "memspace.attribution.engines:ENGINES"),
        ("influence", "engine", "memspace.attribution.engines:ENGINES"),
        ("influence", "engine", "memspace.attribution.attribution:TRAINING_ENGINES"),
    ],
)
def test_the_help_names_every_word_that_is_taken(command: str, name: str, words: str) -> None:
    module, _, listed = words.partition(":")
    (run,) = (made.run for made in declared() if made.name == command)
    info = _info(inspect.signature(run).parameters[name])
    assert [w for w in getattr(importlib.import_module(module), listed) if w not in info.help] == []


@dataclass(frozen=True, kw_only=True)
class _Twice:
    seed: Annotated[int, option("Another seed.")] = 0


def test_a_dataclass_becomes_options_and_comes_back_filled() -> None:
    got: list[Any] = []

    def run(which: TaskOptions, output: Output, top: Annotated[int, COUNT, option("How many.")] = 3) -> None:
        got.append((which, output, top))

    flat = takes_options(run)
    assert list(inspect.signature(flat).parameters) == ["task", "data_root", "as_json", "quiet", "top"]
    flat(task="digits", data_root=None, as_json=True, quiet=False, top=5)
    assert got == [(TaskOptions(task="digits"), Output(as_json=True), 5)]
    panels = {n: _info(p) for n, p in inspect.signature(flat).parameters.items()}
    assert panels["data_root"].rich_help_panel == "Task"
    assert panels["quiet"].rich_help_panel == "Output"
    assert panels["top"].rich_help_panel is None


def test_an_option_that_is_there_twice_is_a_fault_of_the_command() -> None:
    def run(seed: Annotated[int, option("A seed.")], other: _Twice) -> None: ...

    with pytest.raises(TypeError, match="takes the option seed twice"):
        takes_options(run)


def _callback(*metadata: Any) -> Any:
    def run(steps: Any) -> None: ...

    run.__annotations__["steps"] = Annotated[int, *metadata]
    return typing.get_args(inspect.signature(takes_options(run)).parameters["steps"].annotation)[-1].callback


@pytest.mark.parametrize(
    ("metadata", "value", "says"),
    [
        ((COUNT, option("Steps.")), 0, "--steps is out of range: 0"),
        ((COUNT, option("Steps.")), [3, 0], "--steps is out of range: 0"),
        ((option("Steps.", words=("few", "many")),), "some", "there is no steps 'some'"),
        ((option("Steps.", words="memspace.action.readout:LENSES"),), "some", "give one of tuned, logit"),
    ],
)
def test_a_value_is_checked_by_the_limit_of_what_it_fills(metadata: Any, value: Any, says: str) -> None:
    check, named = _callback(*metadata), SimpleNamespace(opts=["--steps"])
    with pytest.raises(SettingsError, match=says):
        check(named, value)
    assert check(named, None) is None


def test_the_help_says_a_range_that_is_not_plain() -> None:
    shown = _help_of("attack", "examples"), _help_of("attack", "steps"), _help_of("audit", "label_noise")
    assert shown[0].endswith(", 10 or more.")
    assert shown[1] == "Gradient steps of a search."
    assert shown[2].endswith(", from 0 to below 1.")


def _help_of(command: str, name: str) -> str:
    (run,) = (made.run for made in declared() if made.name == command)
    return str(_info(inspect.signature(run).parameters[name]).help)


def _info(parameter: inspect.Parameter) -> Any:
    return typing.get_args(parameter.annotation)[-1]
