"""Modules whose names are imported from elsewhere when they are first used (PEP 562)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any

__all__ = ["lazily"]


def lazily(
    names: dict[str, Any], places: Mapping[str, str], called: Mapping[str, str] | None = None
) -> tuple[Callable[[str], Any], Callable[[], list[str]]]:
    """Make the ``__getattr__`` and ``__dir__`` of a module that is a table of names.

    Args:
        names: ``globals()`` of the module.
        places: name → module that has it.
        called: name → what its module calls it, where that differs.

    Returns:
        the two functions; each name is imported once.

    Raises:
        AttributeError: (by the first function) the table has no such name.
    """
    module = names["__name__"]

    def get(name: str) -> Any:
        if name not in places:
            raise AttributeError(f"module {module!r} has no attribute {name!r}")
        value = getattr(import_module(places[name]), (called or {}).get(name, name))
        names[name] = value
        return value

    def listed() -> list[str]:
        return sorted({*names, *places})

    return get, listed
