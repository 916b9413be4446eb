"""Output laws by name, so that a stored run can name its law and load it again."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, TypeVar

from memspace.errors import SettingsError
from memspace.extensions import load_extensions
from memspace.task.law import Likelihood

__all__ = ["law_from_dict", "law_to_dict", "register_law", "registered_laws"]

Law = TypeVar("Law", bound=type[Likelihood])
_LAWS: dict[str, type[Likelihood]] = {}


def register_law(law: Law) -> Law:
    """Register a class of output laws under its own name; use it as a decorator.

    Args:
        law: made again by ``law.from_arguments(law.arguments())``.

    Returns:
        The class itself.

    Raises:
        SettingsError: another class has the name.
    """
    known = _LAWS.setdefault(law.__name__, law)
    if (known.__module__, known.__qualname__) != (law.__module__, law.__qualname__):
        raise SettingsError(
            f"there are two output laws called {law.__name__}, of {known.__module__} and of {law.__module__}",
            where="register_law",
            remedy="rename one of them",
        )
    _LAWS[law.__name__] = law  # a module that was loaded again
    return law


def registered_laws() -> Mapping[str, type[Likelihood]]:
    """Return all registered classes by name, those of extensions included.

    Returns:
        Each name with its class.
    """
    load_extensions()
    return _LAWS


def law_to_dict(law: Likelihood) -> dict[str, Any]:
    """Write a law as plain JSON types.

    Args:
        law: any.

    Returns:
        ``kind``, the name of its class, and ``arguments``, empty where the class is not registered.
    """
    registered = registered_laws().get(type(law).__name__) is type(law)
    return {"kind": type(law).__name__, "arguments": law.arguments() if registered else {}}


def law_from_dict(described: Mapping[str, Any]) -> Likelihood | None:
    """Make the law that :func:`law_to_dict` described.

    Args:
        described: ``kind`` and ``arguments``.

    Returns:
        The law, or None where its class is not registered in this process.

    Raises:
        ValueError: arguments that the class does not take.
    """
    law = registered_laws().get(described["kind"])
    if law is None:
        return None
    if not all(_plain(v) for v in described["arguments"].values()):
        raise ValueError(f"the arguments of {law.__name__} are no finite numbers, texts or lists of them")
    try:
        return law.from_arguments(described["arguments"])
    except TypeError as error:
        raise ValueError(f"{law.__name__} does not take these arguments") from error


def _plain(value: Any) -> bool:
    if isinstance(value, list | tuple):
        return all(_plain(v) for v in value)
    return value is None or isinstance(value, str | bool) or (isinstance(value, int | float) and math.isfinite(value))
