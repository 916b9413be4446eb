"""The one rule by which every verb takes its task: a :class:`memspace.Task` alone, or a model followed by its data.

``verb(task, ...)`` and ``verb(model, train, test, likelihood=..., ...)`` are the same call; further fields of a task
are given by name. What cannot be meant (a task and data, a class for an instance, data for a model) ends in one
sentence.
"""

from __future__ import annotations

import difflib
import functools
import inspect
import typing
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass, fields
from typing import Any, Concatenate, ParamSpec, Protocol, TypeVar, cast, overload

from torch import nn

from memspace.arguments import described, typed
from memspace.errors import SettingsError, TaskError
from memspace.task.fixed import fixed_parts
from memspace.task.task import Task

__all__ = ["Verb", "verb"]

P = ParamSpec("P")
S = TypeVar("S")
S_contra = TypeVar("S_contra", contravariant=True)
R = TypeVar("R")
R_co = TypeVar("R_co", covariant=True)
FIELDS = tuple(f.name for f in fields(Task))
BY_NAME = tuple(name for name in FIELDS if name != "model")
TAKEN = "give a memspace.Task, or a model followed by its training data"


class Verb(Protocol[S_contra, P, R_co]):
    """A function of a task that can be called with a model and its data instead."""

    __name__: str

    @overload
    def __call__(self, task: S_contra, /, *args: P.args, **keywords: P.kwargs) -> R_co: ...
    @overload
    def __call__(self, model: nn.Module, train: Any, test: Any = None, /, **more: Any) -> R_co: ...
    @overload
    def __call__(self, **named: Any) -> R_co: ...


def verb(function: Callable[Concatenate[S, P], R]) -> Verb[S, P, R]:
    """Make a function of a task callable with a model and its data too, and hold its arguments to their annotations.

    Args:
        function: its first parameter is a task (or one of a union with a task); no other parameter is called like a
            field of :class:`memspace.Task`.

    Returns:
        the verb; it raises ``TaskError`` where no task can be made of what is given, ``SettingsError`` where another
        argument is wrong.
    """
    run = cast(Callable[..., R], typed(function))
    subject = next(iter(inspect.signature(function).parameters))
    where = f"memspace.{function.__name__}"

    @functools.wraps(function)
    def called(*args: Any, **keywords: Any) -> R:
        first, rest = _subject(args, keywords, subject, where)
        if isinstance(first, _subjects(function)):
            _check_alone(first, rest, keywords, _names_of(function), where)
            with fixed_parts(first) if isinstance(first, Task) else nullcontext():
                return run(first, *rest, **keywords)
        if not isinstance(first, nn.Module):
            raise _no_task(first, where)
        task, arguments = _with_data(first, rest, keywords, _names_of(function), where)
        with fixed_parts(task):
            return run(task, **arguments)

    return cast(Verb[S, P, R], called)


def _subject(args: tuple[Any, ...], keywords: dict[str, Any], name: str, where: str) -> tuple[Any, tuple[Any, ...]]:
    """What the verb is asked of, taken out of the arguments, and the positional ones after it."""
    if args:
        return args[0], args[1:]
    for known in (name, "task", "model"):
        if known in keywords:
            return keywords.pop(known), ()
    raise TaskError("no task is given", where=where, remedy=TAKEN)


def _subjects(function: Callable[..., Any]) -> tuple[type, ...]:
    """The classes that a function takes as they are: a task, and what else its first annotation names."""
    first = next(iter(typing.get_type_hints(function).values()))
    return tuple(kind for kind in typing.get_args(first) or (first,) if isinstance(kind, type))


@dataclass(frozen=True)
class _Names:
    """The names of a verb's own arguments, without the task.

    Args:
        every: all of them, those that ``**options`` stands for among them.
        needed: those without a default.
        by_position: whether the first may be given by position.
    """

    every: tuple[str, ...]
    needed: tuple[str, ...]
    by_position: bool


@functools.cache
def _names_of(function: Callable[..., Any]) -> _Names:
    parameters = list(inspect.signature(function).parameters.values())[1:]
    single = [p for p in parameters if p.kind is not p.VAR_KEYWORD]
    hints = typing.get_type_hints(function)
    options = [typing.get_args(hints[p.name])[0] for p in parameters if p.kind is p.VAR_KEYWORD]
    return _Names(
        (*(p.name for p in single), *(name for kind in options for name in kind.__annotations__)),
        tuple(p.name for p in single if p.default is p.empty),
        bool(single) and single[0].kind is not inspect.Parameter.KEYWORD_ONLY,
    )


def _no_task(given: Any, where: str) -> TaskError:
    if isinstance(given, type) and issubclass(given, nn.Module | Task):
        return TaskError(f"the model is {described(given)}", where=where, remedy=f"give {given.__name__}(...)")
    what = f"{described(given)} is neither a memspace.Task nor an nn.Module"
    return TaskError(what, where=where, remedy=TAKEN)


def _check_alone(task: Any, rest: tuple[Any, ...], keywords: dict[str, Any], names: _Names, where: str) -> None:
    """Raise where a task is given and data, or fields of a task, besides; None stands for nothing."""
    besides = [name for name in BY_NAME if name in keywords and name not in names.every]
    besides = [name for name in besides if keywords.pop(name) is not None]
    if rest and not names.by_position:
        besides = besides or ["data"]
    if besides:
        what = f"a {type(task).__name__} is given and {', '.join(besides)} besides"
        remedy = f"give the {type(task).__name__} alone, or dataclasses.replace(task, ...)"
        raise TaskError(what, where=where, remedy=remedy)


def _with_data(
    model: nn.Module, rest: tuple[Any, ...], keywords: dict[str, Any], names: _Names, where: str
) -> tuple[Task, dict[str, Any]]:
    """The task of a model and its data, and the verb's own arguments."""
    if len(rest) > 2 or any(name in keywords for name in ("train", "test")[: len(rest)]):
        what = f"{len(rest)} arguments follow the model" if len(rest) > 2 else "data are given twice"
        raise SettingsError(what, where=where, remedy="give (model, train, test) in this order, all else by name")
    named = dict(zip(("train", "test"), rest, strict=False)) | keywords
    for name in named:
        if name not in names.every and name not in BY_NAME:
            raise _unknown(name, [*names.every, *BY_NAME], where)
    missing = [name for name in names.needed if name not in named]
    if missing:
        remedy = f"after a model and its data give {missing[0]}=..."
        raise SettingsError(f"{missing[0]} is missing", where=where, remedy=remedy)
    if named.get("train") is None:
        raise TaskError("no training data are given", where=where, remedy=f"call {where}(model, train)")
    if isinstance(named["train"], Task):
        raise TaskError("a model is given and a Task besides", where=where, remedy="give the Task alone")
    about = {"name": type(model).__name__} | {k: v for k, v in named.items() if k in BY_NAME}
    if about.get("likelihood", model) is None:
        del about["likelihood"]
    return Task(model=model, **about), {k: v for k, v in named.items() if k in names.every}


def _unknown(name: str, known: list[str], where: str) -> SettingsError:
    near = difflib.get_close_matches(name, known, 1)
    remedy = f"{near[0]} may be meant" if near else f"there are {', '.join(known)}"
    return SettingsError(f"there is no argument {name}", where=where, remedy=remedy)
