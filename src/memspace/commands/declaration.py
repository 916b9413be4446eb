"""What a command of the command line is: a function of few arguments, declared by a decorator.

An argument that is a dataclass of :mod:`memspace.commands.options` stands for all its fields, each an option of its
own; the function gets the filled dataclass. A command from outside the package is declared the same way, in a module
that is named as an extension (see :mod:`memspace.extensions`)::

    @command()
    def outline(which: NetworkOptions, output: Output) -> None:
        \"\"\"Print the names of a network's layers.\"\"\"
"""

from __future__ import annotations

import dataclasses
import functools
import inspect
import typing
from collections.abc import Callable
from copy import copy
from dataclasses import dataclass
from typing import Annotated, Any

import typer

from memspace.errors import SettingsError
from memspace.limits import Limit

__all__ = ["GROUPS", "Command", "command", "declared", "takes_options"]

GROUPS = {
    "claims": "Claims registered before the run, judged from a store of networks.",
    "study": "Studies that train many networks to a stated verdict.",
    "encoders": "Encoders of images with known factors: trained by the field's methods, scored, kept in a store.",
    "zoo": "Zoos: many networks trained to one training loss, measured and kept in a store.",
}
_declared: dict[tuple[str, str], Command] = {}


@dataclass(frozen=True)
class Command:
    """A declared command.

    Args:
        name: what a user types.
        run: the function as typer reads it: each option an argument of its own.
        group: comes before the name, where there is one.
        goes_on: whether the same command resumes after Ctrl-C; an option's name: where that option is given.
    """

    name: str
    run: Callable[..., None]
    group: str = ""
    goes_on: bool | str = False

    @property
    def options(self) -> tuple[str, ...]:
        """The names of its arguments and options, as Python spells them."""
        return tuple(inspect.signature(self.run).parameters)


def command(
    name: str = "", *, group: str = "", goes_on: bool | str = False
) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Declare a function as a command.

    Args:
        name: of the command; the function's own where empty.
        group: word that comes before the name.
        goes_on: whether the same command goes on after Ctrl-C; an option's name: where that option is given.

    Returns:
        A decorator that registers the function and gives it back unchanged.

    Raises:
        SettingsError: (by the decorator) there is such a command already.
    """

    def declare(function: Callable[..., None]) -> Callable[..., None]:
        made = Command(name or function.__name__, takes_options(function), group, goes_on)
        key = (made.group, made.name)
        if key in _declared:
            words = " ".join(filter(None, key))
            raise SettingsError(
                f"there is a command {words} already", where=function.__module__, remedy="give it another name"
            )
        _declared[key] = made
        return function

    return declare


def declared() -> tuple[Command, ...]:
    """List the commands declared so far.

    Returns:
        the commands, by group and name.
    """
    return tuple(_declared[key] for key in sorted(_declared))


def takes_options(function: Callable[..., None]) -> Callable[..., None]:
    """Spread the dataclasses among a function's arguments into options, as typer reads them.

    Args:
        function: its arguments are dataclasses of options, or single options (``Annotated[int, COUNT, option(...)]``).

    Returns:
        A function of keywords, one for every option; it fills the dataclasses and calls ``function``.

    Raises:
        TypeError: two of its arguments have an option of one name.
    """
    hints = typing.get_type_hints(function, include_extras=True)
    flat: dict[str, inspect.Parameter] = {}
    parts: dict[str, tuple[type, tuple[str, ...]]] = {}
    for name, parameter in inspect.signature(function).parameters.items():
        kind = hints[name]
        if dataclasses.is_dataclass(kind) and isinstance(kind, type):
            options = _options_of(kind)
            parts[name] = kind, tuple(option.name for option in options)
        else:
            options = [_option(name, parameter.default, kind, None)]
        twice = {option.name for option in options} & flat.keys()
        if twice:
            raise TypeError(f"{function.__name__} takes the option {twice.pop()} twice")
        flat |= {option.name: option for option in options}

    @functools.wraps(function)
    def run(**values: Any) -> None:
        filled = {part: kind(**{name: values.pop(name) for name in names}) for part, (kind, names) in parts.items()}
        function(**filled, **values)

    del run.__wrapped__  # typer would read the dataclasses
    run.__annotations__ = {name: option.annotation for name, option in flat.items()}
    run.__signature__ = inspect.Signature(list(flat.values()))  # type: ignore[attr-defined]
    return run


def _options_of(kind: Any) -> list[inspect.Parameter]:
    """The fields of a dataclass of options, each as an argument of one keyword, shown in the panel of the class."""
    hints = typing.get_type_hints(kind, include_extras=True)
    options = []
    for field in dataclasses.fields(kind):
        default = inspect.Parameter.empty if field.default is dataclasses.MISSING else field.default
        options.append(_option(field.name, default, hints[field.name], getattr(kind, "panel", None)))
    return options


def _option(name: str, default: Any, annotation: Any, panel: str | None) -> inspect.Parameter:
    """One option as typer reads it: in a panel of the help, and held to the limit that its annotation names."""
    annotated = typing.get_origin(annotation) is Annotated
    value, *metadata = typing.get_args(annotation) if annotated else (annotation, typer.Option())
    limits = [m for m in metadata if isinstance(m, Limit)]
    shown = [copy(m) for m in metadata]
    for info in (m for m in shown if isinstance(m, typer.models.OptionInfo)):
        info.rich_help_panel = info.rich_help_panel or panel
        for limit in limits:
            info.help, info.callback = _with_range(info.help or "", limit), _within(limit)
    kind = inspect.Parameter.KEYWORD_ONLY
    return inspect.Parameter(name, kind, default=default, annotation=Annotated[value, *shown])


def _with_range(help: str, limit: Limit) -> str:
    """The help with the range of the values, where it is not plain."""
    plain = limit.low <= 1 and limit.high >= 2**31 - 1
    return help if plain else f"{help.removesuffix('.')}, {limit.span.removeprefix('of ')}."


def _within(limit: Limit) -> Callable[[typer.CallbackParam, Any], Any]:
    """A check of an option's value; the same as that of the setting it becomes."""

    def check(option: typer.CallbackParam, value: Any) -> Any:
        if isinstance(value, list | tuple):
            return [limit(v, option.opts[0]) for v in value]
        return limit.optional(value, option.opts[0])

    return check
