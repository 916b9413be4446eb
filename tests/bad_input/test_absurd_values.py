"""Every argument of every public function, given what it cannot be: one sentence, never a traceback, never taken."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from torch import nn

import memspace
from memspace import MemspaceError
from memspace.attribution.settings import InfluenceSettings

X = torch.randn(24, 4, generator=torch.Generator().manual_seed(3))
Y = torch.arange(24) % 3
FAR = 10**30
BAD_TENSOR = torch.tensor([math.nan, 2.0])
THING = object()


def _make() -> nn.Module:
    torch.manual_seed(0)
    return nn.Linear(4, 3)


RECIPE = {"epochs": 2, "batch": 8, "rate": 0.05, "decay": 1e-3}
FACTORS = {"names": ("a", "b"), "values": torch.stack([Y, Y // 2], 1), "inputs": X, "sizes": (3, 2)}
RUN = {"states": [_make().state_dict()] * 3, "time": (0.0, 1.0, 2.0), "step": (0, 1, 2)}
TRAINING = memspace.Training(_make, memspace.Recipe(**RECIPE))
TASK = memspace.Task(_make(), (X, Y), test=(X[:9], Y[:9]), training=TRAINING)
SPACE = memspace.verified_space(TASK)
STATE = {k: v.clone() for k, v in _make().state_dict().items()}

WORD = (THING, BAD_TENSOR, -1, math.nan, (), {}, [999])
NAME = (*WORD, None)
FLAG = ("x", -1, 2, 0.5, math.nan, (), THING, BAD_TENSOR)
WHOLE = ("x", -1, math.nan, math.inf, FAR, 0.5, (), {}, THING, BAD_TENSOR, [999], True)
COUNT = (*WHOLE, 0)
NUMBER = ("x", math.nan, (), {}, THING, BAD_TENSOR, [999], True)
POSITIVE = (*NUMBER, 0, -1, math.inf)
EXITS = (2, 3, 4, 5, 9)  # settings, task, data, labels, weights
LIST = ("x", -1, math.nan, 0.5, THING, True, None)
INDEX = ("x", "", -1, 0, math.nan, FAR, 0.5, (), {}, THING, BAD_TENSOR, [999], [-1], True)
TENSOR = ("x", -1, math.nan, (), {}, THING, [999], True)

CALLS: dict[str, tuple[Callable[..., Any], dict[str, Any], dict[str, tuple[Any, ...]]]] = {
    "Categorical": (memspace.Categorical, {}, {"name": NAME, "class_axis": ("x", 0, 7, 0.5, BAD_TENSOR, True)}),
    "Bernoulli": (memspace.Bernoulli, {}, {"name": NAME}),
    "Poisson": (memspace.Poisson, {}, {"name": NAME}),
    "Gaussian": (memspace.Gaussian, {}, {"name": NAME, "fitted": FLAG, "sigma": (*POSITIVE, (1.0, -1.0))}),
    "Data": (memspace.Data, {"source": (X, Y)}, {"name": NAME}),
    "Recipe": (
        memspace.Recipe,
        RECIPE,
        {
            "epochs": (*WHOLE, None),
            "batch": COUNT,
            "rate": (*NUMBER, -1, math.inf),
            "decay": (*NUMBER, -1, math.inf),
            "checkpoints": WHOLE,
            "threads": COUNT,
            "momentum": (*NUMBER, -1, 1, math.inf),
            "optimiser": (*NAME, "lion"),
        },
    ),
    "Run": (
        memspace.Run,
        RUN,
        {
            "states": (*LIST, (), [], [1, 2, 3], [{"a": 1}] * 3),
            "time": (*LIST, (), (0.0, 1.0), (0.0, 1.0, math.nan), ("a", "b", "c")),
            "step": (*LIST, (), (0, 1), (0, -1, 2), (0, 0.5, 1)),
            "epochs": (*NUMBER, -1, math.inf),
            "one_step": ("x", -1, THING, (1, 2), ((1, math.nan),), (("a", "b"),)),
            "optimiser": NAME,
        },
    ),
    "Factors": (
        memspace.Factors,
        FACTORS,
        {
            "names": (*LIST, (), ("a",), (1, 2)),
            "sizes": (*LIST, (), (3,), (1, 1)),
            "values": (*TENSOR, X, X[:, :2], Y),
            "inputs": (*TENSOR, X[:5]),
            "render": ("x", 3),
        },
    ),
    "Task": (
        memspace.Task,
        {"model": _make(), "train": (X, Y)},
        {"decay": (*NUMBER, -1, math.inf), "true_labels": TENSOR, "shift_labels": FLAG, "parameters": ((1,), -1)},
    ),
    "WatchSettings": (
        memspace.WatchSettings,
        {},
        {"probe": COUNT, "checkpoints": COUNT, "spacing": POSITIVE, "budget": POSITIVE, "every": COUNT, "slow": FLAG},
    ),
    "influence.Settings": (
        InfluenceSettings,
        {},
        {"rows": COUNT, "modes": WHOLE, "batch": COUNT, "tolerance": POSITIVE},
    ),
    "Measurement": (
        memspace.Measurement,
        {"name": "a.b", "value": 1.0, "unit": "1", "estimator": "x", "n": 3},
        {
            "name": (*NAME, ""),
            "unit": (*NAME, ""),
            "value": ("x", (), {}, THING, BAD_TENSOR, None),
            "n": ("x", 0.5, math.nan, THING, True),
            "interval": (1, "x", (1.0,), (1, 2, 3), ("a", "b"), THING),
        },
    ),
    "FisherProximal": (
        partial(memspace.FisherProximal, _make(), memspace.Categorical()),
        {"tau": 1.0},
        {"tau": POSITIVE, "average": (*NUMBER, -1, 1), "form": (*NAME, "l2")},
    ),
    "FisherRaoNorm": (partial(memspace.FisherRaoNorm, _make(), memspace.Categorical()), {}, {"degree": NUMBER}),
    "DepthAction": (
        partial(memspace.DepthAction, nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4))),
        {},
        {"blocks": (-1, math.nan, {}, THING, BAD_TENSOR, [999], ["a", 1]), "excess": FLAG},
    ),
    "NaturalGradient": (
        partial(memspace.NaturalGradient, _make()),
        {},
        {
            "lr": (*NUMBER, -1, math.inf),
            "damping": POSITIVE,
            "momentum": (*NUMBER, -1, 1),
            "weight_decay": (*NUMBER, -1, math.inf),
            "factors": COUNT,
            "refresh": COUNT,
            "memory": (*NUMBER, -1, 1),
            "examples": COUNT,
            "longest": (*NUMBER, -1, 0),
            "kind": (*NAME, "true"),
            "parameters": (-1, math.nan, THING, BAD_TENSOR, [999]),
            "seed": WHOLE,
        },
    ),
    "ParameterSpace": (
        partial(memspace.ParameterSpace, _make()),
        {},
        {"loose": (*LIST, [999]), "only": (-1, [999], BAD_TENSOR), "without": (-1, [999], BAD_TENSOR)},
    ),
    "verified_space": (partial(memspace.verified_space, TASK), {}, {"names": (*LIST, [999], BAD_TENSOR)}),
    "fisher": (
        partial(memspace.fisher, TASK, SPACE, "diagonal"),
        {},
        {
            "samples": COUNT,
            "lost": (*NUMBER, -1, 1, math.inf),
            "memory": COUNT,
            "batch": COUNT,
            "seed": WHOLE,
            "index": INDEX,
        },
    ),
    "natural_gradient_flow": (
        partial(memspace.natural_gradient_flow, TASK),
        {"duration": 0.1, "steps": 2},
        {"duration": POSITIVE, "steps": COUNT, "damping": (*NUMBER, -1, math.inf), "method": NAME, "index": INDEX},
    ),
    "train_many": (
        memspace.train_many,
        {"training": TRAINING, "x": X, "y": Y, "likelihood": memspace.Categorical(), "seeds": [0]},
        {
            "x": (*TENSOR, None, X[:5], BAD_TENSOR),
            "y": (*TENSOR, None, Y[:5]),
            "seeds": ((), "x", -1, [math.nan], [-1], [FAR], [0.5]),
            "weights": (*TENSOR, X),
            "index": (*TENSOR, Y, X),
            "at_once": COUNT,
            "memory": COUNT,
        },
    ),
    "geodesic": (
        partial(memspace.geodesic, TASK),
        {"a": STATE, "b": STATE},
        {
            "a": ({}, 3, {"weight": X}),
            "b": ({}, "x", {"weight": STATE["weight"]}),
            "path": ([{}], "x", -1, [{"weight": X}]),
            "examples": COUNT,
            "levels": ((), (0,), (-1,), (0.5,), "x", 9),
            "limit": COUNT,
            "tolerance": (*NUMBER, -1, math.inf),
            "curve": FLAG,
            "seed": WHOLE,
        },
    ),
    "duplicates": (
        partial(memspace.duplicates, TASK),
        {},
        {"rate": (*POSITIVE, 1), "within": (*NAME, "x"), "seed": WHOLE},
    ),
    "reweight": (
        partial(memspace.reweight, TASK, (X, Y)),
        {},
        {"state": ({}, 3, {"weight": X}), "preconditioned": FLAG},
    ),
    "label_issues": (
        partial(memspace.label_issues, TASK),
        {},
        {"folds": (*WHOLE, 1), "repeats": COUNT, "reasons": WHOLE},
    ),
    "leave_one_out": (partial(memspace.leave_one_out, TASK), {}, {"folds": (*WHOLE, 1)}),
}
CASES = [
    pytest.param(name, argument, value, id=f"{name}-{argument}-{k}")
    for name, (_, _, arguments) in CALLS.items()
    for argument, values in arguments.items()
    for k, value in enumerate(values)
]


@pytest.mark.parametrize(("name", "argument", "value"), CASES)
def test_it_is_refused_in_one_sentence(name: str, argument: str, value: Any) -> None:
    call, base, _ = CALLS[name]
    with pytest.raises(MemspaceError) as said:
        call(**{**base, argument: value})
    text = str(said.value)
    assert "\n" not in text
    assert len(text) < 700
    assert said.value.exit_code in EXITS


@pytest.mark.parametrize(
    "name", [n for n in CALLS if n not in ("label_issues", "leave_one_out", "geodesic", "duplicates")]
)
def test_what_it_is_made_for_is_still_taken(name: str) -> None:
    call, base, _ = CALLS[name]
    call(**base)


def test_numbers_arrive_as_the_annotation_has_them() -> None:
    made = memspace.NaturalGradient(_make(), lr=1, factors=4.0, seed=torch.tensor(3))
    assert type(made.param_groups[0]["lr"]) is float
    assert type(made.param_groups[0]["factors"]) is int
    recipe = memspace.Recipe(2.0, 8, 1, 0)
    assert (type(recipe.epochs), type(recipe.rate)) == (int, float)
    run = memspace.Run([STATE, STATE], [0, 1], [0, 5.0])
    assert run.time == (0.0, 1.0)
    assert run.step == (0, 5)


def test_an_empty_folder_and_no_optimiser_are_refused_by_watch() -> None:
    with pytest.raises(MemspaceError, match="out is empty"):
        memspace.watch(_make(), (X, Y), out="")
    with pytest.raises(MemspaceError, match="no optimiser"):
        memspace.watch(_make(), (X, Y), [], out=None)
