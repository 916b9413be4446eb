"""Arguments of a wrong type end in one sentence, at the door of every public function.

The annotations of a function say what it takes. :func:`typed` holds each argument against them before anything runs,
where the annotation is a class, a number, a word, a container or a choice between these; the rest, tensors and data
among it, is read by whoever uses it. ``Annotated[int, COUNT]`` says the range of a number too.
"""

from __future__ import annotations

import collections.abc
import dataclasses
import difflib
import functools
import inspect
import numbers
import os
import sys
import types
import typing
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

import torch
from torch import Tensor

from memspace.errors import DataError, SettingsError, TaskError
from memspace.limits import Limit

__all__ = ["as_positions", "check_fields", "check_names", "described", "typed"]

P = ParamSpec("P")
R = TypeVar("R")
Kind = tuple[Callable[[Any], bool], str]  # whether a value is one, and what that is in words
VARIABLE = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
HOW_TO_MAKE = {
    "Task": "make one by memspace.Task(model, train)",
    "ParameterSpace": "make one by memspace.verified_space(task)",
    "Settings": "make them by memspace.Settings(seed=0)",
    "Training": "make one by memspace.Training(make, recipe)",
    "Likelihood": "give memspace.Categorical(), Bernoulli(), Gaussian() or Poisson()",
}


def typed(function: Callable[P, R]) -> Callable[P, R]:
    """The function, refusing arguments that are not what its annotations say.

    Raises:
        TaskError: something else stands where a task is due.
        SettingsError: any other argument is of a wrong type, out of its range, missing, or not known.
    """
    signature = inspect.signature(function)
    hints: dict[str, Any] = {}
    where = _name(function)

    @functools.wraps(function)
    def held(*args: P.args, **keywords: P.kwargs) -> R:
        if not hints:  # at the first call: annotations may name what is defined below the function
            hints.update(typing.get_type_hints(function, include_extras=True))
        try:
            given = signature.bind_partial(*args, **keywords).arguments
            for name, value in given.items():
                if name in hints and signature.parameters[name].kind not in VARIABLE:
                    _check(value, hints[name], name, where)
            signature.bind(*args, **keywords)
        except TypeError as error:
            what = f"it cannot be called like this: {error}"
            raise SettingsError(what, where=where, remedy=f"see help({where})") from None
        return function(*args, **keywords)

    return held


def check_fields(made: Any, besides: Iterable[str] = ()) -> None:
    """Raise where a field of a dataclass is not what its annotation says, as :func:`typed` does for arguments."""
    hints, left = typing.get_type_hints(type(made), include_extras=True), set(besides)
    for field in dataclasses.fields(made):
        if field.name not in left:
            _check(getattr(made, field.name), hints[field.name], field.name, f"memspace.{type(made).__name__}")


def check_names(given: Mapping[str, Any], of: type, where: str) -> None:
    """Raise where a keyword is no field of the dataclass ``of``; says which one may be meant."""
    known = [field.name for field in dataclasses.fields(of)]
    for name in given:
        if name not in known:
            near = difflib.get_close_matches(name, known, 1)
            remedy = f"{near[0]} may be meant" if near else f"a {of.__name__} has {', '.join(known)}"
            raise SettingsError(f"there is no argument {name}", where=where, remedy=remedy)


def as_positions(given: Any, name: str, remedy: str) -> Tensor:
    """Positions in data as a tensor of whole numbers (n,) on the CPU; it may be empty.

    Raises:
        DataError: anything else was given.
    """
    try:
        index = torch.as_tensor(given if isinstance(given, Tensor) or hasattr(given, "__array__") else list(given))
    except (TypeError, ValueError, RuntimeError, OverflowError):
        index = None
    if index is None or index.dim() != 1 or index.dtype == torch.bool or (len(index) and _fractional(index)):
        kind = described(given) if index is None else str(index.dtype).removeprefix("torch.")
        shape = "" if index is None else f" of shape {tuple(index.shape)}"
        raise DataError(f"{name} are whole numbers in a list, not {kind}{shape}", where=name, remedy=remedy)
    return index.cpu()


def described(value: Any) -> str:
    """A value in a few words: numbers and short strings as they are, all else by its kind."""
    if value is None or isinstance(value, bool | int | float):
        return repr(value)
    if isinstance(value, str):
        text = repr(value)
        return text if len(text) <= 60 else f"{text[:57]}..."
    if isinstance(value, type):
        return f"the class {value.__name__} itself"
    return _one(type(value).__name__)


def _check(value: Any, annotation: Any, name: str, where: str) -> None:
    """Raise where the annotation does not allow the value; what it does not tell is let through."""
    if typing.get_origin(annotation) is typing.Annotated:
        kind, *limits = typing.get_args(annotation)
        _check(value, kind, name, where)
        for limit in limits:
            if isinstance(limit, Limit) and value is not None:
                limit(value, name, where)
        return
    union = typing.get_origin(annotation) in (typing.Union, types.UnionType)
    choices = typing.get_args(annotation) if union else (annotation,)
    kinds = [_kind(c) for c in choices]
    known = [k for k in kinds if k is not None]
    if len(known) < len(kinds) or any(fits(value) for fits, _ in known):
        return
    named = [c.__name__ for c in choices if isinstance(c, type)]
    words = " or ".join(dict.fromkeys(said for _, said in known if said != "None"))
    makes = [HOW_TO_MAKE[n] for n in named if n in HOW_TO_MAKE]
    remedy = makes[0] if makes else f"give {words}"
    if isinstance(value, type) and any(isinstance(c, type) and issubclass(value, c) for c in choices):
        remedy = f"give {value.__name__}(...)"
    if isinstance(value, torch.nn.Module) and "a dict" in words:
        remedy = "give its state_dict()"
    what = f"{name} is {described(value)}, not {words}"
    raise (TaskError if "Task" in named else SettingsError)(what, where=where, remedy=remedy)


def _kind(choice: Any) -> Kind | None:
    """How to tell values of one annotation; None where it cannot be told from the value's class."""
    origin = typing.get_origin(choice) or choice
    if origin in _PLAIN:
        return _PLAIN[origin]
    if not isinstance(choice, type) or getattr(choice, "_is_protocol", False):
        return None
    if choice.__module__.startswith("memspace."):
        return (lambda v: isinstance(v, choice)), _one(f"{_home(choice)}.{choice.__name__}")
    if choice.__module__.startswith("torch.nn.modules"):
        return (lambda v: isinstance(v, choice)), f"an nn.{choice.__name__}"
    return None


def _scalar(kind: Any) -> Callable[[Any], bool]:
    def fits(value: Any) -> bool:
        if getattr(value, "ndim", None) == 0 and hasattr(value, "item"):
            value = value.item()  # of a tensor or an array of one number
        return isinstance(value, kind)

    return fits


def _whole(value: Any) -> bool:
    return _scalar(numbers.Integral)(value) or (isinstance(value, float) and value.is_integer())  # 4.0 counts as 4


def _listed(value: Any) -> bool:
    return isinstance(value, Iterable) and not isinstance(value, str | bytes | Mapping | type | torch.nn.Module)


_PLAIN: dict[Any, Kind] = {
    types.NoneType: ((lambda v: v is None), "None"),
    bool: (_scalar(numbers.Integral), "True or False"),
    int: (_whole, "a whole number"),
    float: (_scalar(numbers.Real), "a number"),
    str: ((lambda v: isinstance(v, str)), "a string"),
    Path: ((lambda v: isinstance(v, os.PathLike)), "a path"),
    dict: ((lambda v: isinstance(v, Mapping)), "a dict"),
    list: (_listed, "a list"),
    tuple: (_listed, "a list"),
    collections.abc.Mapping: ((lambda v: isinstance(v, Mapping)), "a dict"),
    collections.abc.Sequence: (_listed, "a list"),
    collections.abc.Callable: (callable, "a function"),
}


def _fractional(index: Tensor) -> bool:
    return index.is_floating_point() or index.is_complex()


def _one(word: str) -> str:
    return f"{'an' if word[:1] in 'AEIOUaeiou' else 'a'} {word}"


def _home(kind: type) -> str:
    """Where a user finds a class: the package itself, for the public ones."""
    public = getattr(sys.modules.get("memspace"), "__all__", ())
    return "memspace" if kind.__name__ in public else kind.__module__


def _name(function: Callable[..., Any]) -> str:
    """The function as a user calls it; of a constructor, its class."""
    name = function.__qualname__.removesuffix(".__init__")
    return f"memspace.{'fisher' if name == 'build' else name}"
