"""What the parameters of a declared function need, read off their annotations."""

from __future__ import annotations

import types
import typing
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any, TypeVar

from memspace.errors import SettingsError
from memspace.value import Absent

__all__ = ["Need", "needing", "needs_of", "place", "without"]

F = TypeVar("F", bound=Callable[..., Any])


@dataclass(frozen=True)
class Need:
    """A parameter of a declared function.

    Args:
        kind: the type of the value it takes.
        optional: whether the function can do without it.
        explained: whether it is then passed the reason instead of None.
    """

    kind: Any
    optional: bool
    explained: bool = False


def needing(**kinds: Any) -> Callable[[F], F]:
    """State needs that annotations can't: those of a function made several times, for one type each.

    Args:
        kinds: parameter → type of the value it takes; ``X | None`` where it can do without.

    Returns:
        a decorator that returns the function unchanged; it goes below ``@measure``.
    """

    def declare(function: F) -> F:
        function.__annotations__.update(kinds)
        return function

    return declare


@cache
def needs_of(function: Callable[..., Any]) -> Mapping[str, Need]:
    """Return what the parameters of a declared function need.

    Args:
        function: its parameters are annotated with the types of the values they take.

    Returns:
        parameter → need.

    Raises:
        SettingsError: a parameter has no annotation.
    """
    hints = typing.get_type_hints(function)
    code = function.__code__
    names = code.co_varnames[: code.co_argcount + code.co_kwonlyargcount]
    missing = [n for n in names if n not in hints]
    if missing:
        what = f"the parameter {missing[0]} of {place(function)} has no annotation"
        raise SettingsError(what, where="memspace.measures", remedy="annotate it with the type of the value it needs")
    return {n: _need(hints[n]) for n in names}


def _need(hint: Any) -> Need:
    kind = without(hint, (type(None), Absent))
    return Need(kind, kind is not hint, Absent in typing.get_args(hint))


def without(hint: Any, left_out: tuple[Any, ...]) -> Any:
    """Leave members out of a union; anything else stays as it is.

    Args:
        hint: an annotation.
        left_out: the members.

    Returns:
        what is left of the union.
    """
    if typing.get_origin(hint) not in (typing.Union, types.UnionType):
        return hint
    members = [a for a in typing.get_args(hint) if a not in left_out]
    return members[0] if len(members) == 1 else hint


def place(function: Callable[..., Any]) -> str:
    """Name a function by its module.

    Args:
        function: any.

    Returns:
        module and qualified name.
    """
    return f"{function.__module__}.{function.__qualname__}"
