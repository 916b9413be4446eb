"""Arguments of a wrong type end in one sentence, at every public function.

The annotations of a function say what it takes. :func:`typed` holds each argument against them before anything runs,
where the annotation is a class, a number, a word, a container or a choice between these; the rest, tensors and data
among it, is read by whoever uses it. ``Annotated[int, COUNT]`` says the range of a number
too. Numbers arrive as the annotation has them: 4.0 where a whole number is due as 4.
"""

from __future__ import annotations

import collections.abc
import dataclasses
import functools
import inspect
import math
import numbers
import os
import sys
import types
import typing
from collections.abc import Callable, Collection, Iterable, Mapping
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

from memspace.errors import SettingsError, TaskError
from memspace.limits import Limit

__all__ = ["check_fields", "described", "typed"]

P = ParamSpec("P")
R = TypeVar("R")
Kind = tuple[Callable[[Any], bool], str]  # whether a value is one, and what that is in words
MOST = 2**62  # whole numbers below it have room in a tensor's
FAR = 10**300  # and numbers below it in a float; infinite ones are a function's own affair
VARIABLE = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
MODULE = ("torch.nn.modules.module", "Module")
HOW_TO_MAKE = {
    "Task": "make one by memspace.Task(model, train)",
    "ParameterSpace": "make one by memspace.verified_space(task)",
    "AuditSettings": "make them by memspace.AuditSettings(seed=0)",
    "InfluenceSettings": "make them by memspace.InfluenceSettings(seed=0)",
    "Training": "make one by memspace.Training(make, recipe)",
    "Likelihood": "give memspace.Categorical(), Bernoulli(), Gaussian() or Poisson()",
}


def typed(function: Callable[P, R]) -> Callable[P, R]:
    """Have a function refuse arguments that are not what its annotations say.

    Args:
        function: with annotations.

    Returns:
        The function behind the check.

    Raises:
        TaskError: (when called) something else stands where a task is due.
        SettingsError: (when called) any other argument is of a wrong type, out of its range, missing, or not known.
    """
    signature = inspect.signature(function)
    hints: dict[str, Any] = {}
    where = _name(function)

    @functools.wraps(function)
    def held(*args: P.args, **keywords: P.kwargs) -> R:
        if not hints:  # at the first call: annotations may name what is defined below the function
            hints.update(typing.get_type_hints(function, include_extras=True))
        try:
            bound = signature.bind_partial(*args, **keywords)
            for name, value in bound.arguments.items():
                kind = signature.parameters[name].kind
                if name in hints and kind is inspect.Parameter.VAR_KEYWORD:
                    bound.arguments[name] = _check_keywords(value, hints[name], where)
                elif name in hints and kind not in VARIABLE:
                    bound.arguments[name] = _check(value, hints[name], name, where)
            signature.bind(*args, **keywords)
        except TypeError as error:
            what = f"it cannot be called like this: {error}"
            raise SettingsError(what, where=where, remedy=f"see help({where})") from None
        return function(*bound.args, **bound.kwargs)

    return held


def check_fields(made: Any, besides: Iterable[str] = (), of: type | None = None) -> None:
    """Refuse fields of a dataclass that are not what their annotations say, as :func:`typed` does for arguments.

    Args:
        made: an instance.
        besides: fields that are read elsewhere.
        of: the class whose fields are meant, where a user may have derived another from it.
    """
    kind = of or type(made)
    hints, left = _hints(kind), set(besides)
    for field in dataclasses.fields(kind):
        if field.name not in left:
            value = getattr(made, field.name)
            read = _check(value, hints[field.name], field.name, f"memspace.{type(made).__name__}")
            if read is not value:
                object.__setattr__(made, field.name, read)


@functools.cache
def _hints(kind: type) -> dict[str, Any]:
    return typing.get_type_hints(kind, include_extras=True)


def described(value: Any) -> str:
    """Describe a value in a few words.

    Args:
        value: any.

    Returns:
        For example ``a list of 3``.
    """
    if value is None or isinstance(value, bool | int | float):
        return repr(value)
    if isinstance(value, str):
        text = repr(value)
        return text if len(text) <= 60 else f"{text[:57]}..."
    if isinstance(value, type):
        return f"the class {value.__name__} itself"
    return _one(type(value).__name__)


def _check(value: Any, annotation: Any, name: str, where: str) -> Any:
    """The value as the annotation has it; raise where it does not allow it. What it does not tell is let through."""
    if typing.get_origin(annotation) is typing.Annotated:
        kind, *extras = typing.get_args(annotation)
        limits = [extra for extra in extras if isinstance(extra, Limit)]
        value = value if limits and _nan(value) else _check(value, kind, name, where)  # the range's message is better
        for limit in limits:
            value = None if value is None else limit(value, name, where)
        return value
    union = typing.get_origin(annotation) in (typing.Union, types.UnionType)
    choices = typing.get_args(annotation) if union else (annotation,)
    kinds = [_kind(c) for c in choices]
    fitting = next((c for c, kind in zip(choices, kinds, strict=True) if kind is not None and kind[0](value)), None)
    if fitting is not None:
        return _as_number(value, fitting) if fitting in (int, float) else value
    known = [k for k in kinds if k is not None]
    if len(known) < len(kinds):
        return value
    named = [c.__name__ for c in choices if isinstance(c, type)]
    words = " or ".join(dict.fromkeys(word for _, word in known if word != "None"))
    makes = [HOW_TO_MAKE[n] for n in named if n in HOW_TO_MAKE]
    remedy = makes[0] if makes else f"give {words}"
    if isinstance(value, type) and any(isinstance(c, type) and issubclass(value, c) for c in choices):
        remedy = f"give {value.__name__}(...)"
    if _network(value) and "a dict" in words:
        remedy = "give its state_dict()"
    if type(value) is int and abs(value) >= MOST and (int in choices or float in choices):
        raise SettingsError(
            f"{name} is out of range: {str(value)[:20]}...", where=where, remedy="give a smaller number"
        )
    if _nan(value) and float in choices:
        raise SettingsError(f"{name} is out of range: nan", where=where, remedy=remedy)
    what = f"{name} is {_unfit(value, choices)}, not {words}"
    raise (TaskError if "Task" in named else SettingsError)(what, where=where, remedy=remedy)


def _check_keywords(given: dict[str, Any], annotation: Any, where: str) -> dict[str, Any]:
    """Hold further keywords against the ``TypedDict`` that ``**options: Unpack[...]`` names, where it names one."""
    if typing.get_origin(annotation) is not typing.Unpack:
        return given
    (fields,) = typing.get_args(annotation)
    hints = _hints(fields)
    for name in given:
        if name not in hints:
            raise TypeError(f"got an unexpected keyword argument {name!r}")
    return {name: _check(value, hints[name], name, where) for name, value in given.items()}


def _unfit(value: Any, choices: tuple[Any, ...]) -> str:
    """The value in a few words; of a list whose entries are wrong, with the first of these."""
    for choice in choices:
        fits = _entries(choice)
        if fits is not None and _listed(value) and isinstance(value, Collection):
            return f"{described(value)} that holds {described(next(v for v in value if not fits[0](v)))}"
    return described(value)


def _kind(choice: Any) -> Kind | None:
    """The check of values of one annotation; None where the value's class does not show it."""
    origin = typing.get_origin(choice) or choice
    if origin in _PLAIN:
        fits, word = _PLAIN[origin]
        entries = _entries(choice)
        if entries is None:
            return fits, word
        return (lambda v: fits(v) and _all(v, entries[0])), f"{word} of {entries[1]}"
    if not isinstance(choice, type) or getattr(choice, "_is_protocol", False):
        return None
    if choice.__module__.startswith("memspace."):
        return (lambda v: isinstance(v, choice)), _one(f"{_home(choice)}.{choice.__name__}")
    if choice.__module__.startswith("torch.nn.modules"):
        return (lambda v: isinstance(v, choice)), f"an nn.{choice.__name__}"
    return None


def _entries(choice: Any) -> Kind | None:
    """The check of the entries of a list of words or numbers; None where it contains anything else."""
    origin, of = typing.get_origin(choice), typing.get_args(choice)
    if origin not in _LISTS or not of or (origin is tuple and of[1:] != (...,)):
        return None
    fits = _PLAIN.get(of[0])
    return (fits[0], _SEVERAL[of[0]]) if fits is not None and of[0] in _SEVERAL else None


def _all(values: Any, fits: Callable[[Any], bool]) -> bool:
    """Whether every entry fits; what can be read only once is left unread."""
    if getattr(values, "ndim", 1) == 0:
        return False
    return not isinstance(values, Collection) or all(fits(v) for v in values)


def _item(value: Any) -> Any:
    return value.item() if getattr(value, "ndim", None) == 0 and hasattr(value, "item") else value


def _true_or_false(value: Any) -> bool:
    value = _item(value)
    return isinstance(value, bool) or (isinstance(value, int) and value in (0, 1))


def _whole(value: Any) -> bool:
    """A whole number that a tensor can hold; 4.0 counts as 4, True not as 1."""
    value = _item(value)
    if isinstance(value, bool) or not isinstance(value, int | float | numbers.Integral):
        return False
    return math.isfinite(value) and int(value) == value and -MOST < int(value) < MOST


def _number(value: Any) -> bool:
    """A number but NaN."""
    value = _item(value)
    if type(value) is bool:
        return False
    if type(value) is int:
        return abs(value) < FAR  # beyond, it cannot be made a float
    return isinstance(value, numbers.Real) and not _nan(value)


def _nan(value: Any) -> bool:
    return isinstance(value, float) and math.isnan(value)


def _as_number(value: Any, kind: type) -> Any:
    number = _item(value)
    return number if type(number) is kind else kind(number)


def _listed(value: Any) -> bool:
    other = (str, bytes, Mapping, type)
    return isinstance(value, Iterable) and not isinstance(value, other) and not _network(value)


def _network(value: Any) -> bool:
    """Whether a value is an nn.Module; torch is not imported to tell, since settings are made without it."""
    return any((kind.__module__, kind.__name__) == MODULE for kind in type(value).__mro__)


_PLAIN: dict[Any, Kind] = {
    types.NoneType: ((lambda v: v is None), "None"),
    bool: (_true_or_false, "True or False"),
    int: (_whole, "a whole number"),
    float: (_number, "a number"),
    str: ((lambda v: isinstance(v, str)), "a string"),
    Path: ((lambda v: isinstance(v, os.PathLike)), "a path"),
    dict: ((lambda v: isinstance(v, Mapping)), "a dict"),
    list: (_listed, "a list"),
    tuple: (_listed, "a list"),
    collections.abc.Mapping: ((lambda v: isinstance(v, Mapping)), "a dict"),
    collections.abc.Sequence: (_listed, "a list"),
    collections.abc.Iterable: (_listed, "a list"),
    collections.abc.Callable: (callable, "a function"),
}
_LISTS = (list, tuple, collections.abc.Sequence, collections.abc.Iterable)
_SEVERAL = {str: "strings", int: "whole numbers", float: "numbers"}


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
