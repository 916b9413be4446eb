"""Worlds by name: each is a function in a file of its own that registers itself."""

from __future__ import annotations

import pkgutil
from collections.abc import Callable
from importlib import import_module
from pathlib import Path

import memspace.task.worlds as package
from memspace.errors import SettingsError
from memspace.extensions import load_extensions
from memspace.task.worlds.factor_world import FactorWorld

__all__ = ["WorldMaker", "register_world", "world", "worlds"]

WorldMaker = Callable[[Path | None], FactorWorld]
_WORLDS: dict[str, WorldMaker] = {}


def register_world(name: str) -> Callable[[WorldMaker], WorldMaker]:
    """Register a function that makes a world; use it as a decorator.

    Args:
        name: of the world.

    Returns:
        What registers ``make(root) -> FactorWorld`` and gives it back; ``root`` is the folder or file that the user
        names, or None.

    Raises:
        SettingsError: the name is another world's.
    """

    def register(make: WorldMaker) -> WorldMaker:
        known = _WORLDS.setdefault(name, make)
        if (known.__module__, known.__qualname__) != (make.__module__, make.__qualname__):
            what = f"the name {name!r} of a world is that of {known.__module__}"
            raise SettingsError(what, where="register_world", remedy="rename it")
        _WORLDS[name] = make
        return make

    return register


def worlds() -> tuple[str, ...]:
    """List the names of all worlds, those of extensions included.

    Returns:
        Names, sorted.
    """
    for module in pkgutil.iter_modules(package.__path__):
        import_module(f"{package.__name__}.{module.name}")
    load_extensions()
    return tuple(sorted(_WORLDS))


def world(name: str, root: str | Path | None = None) -> FactorWorld:
    """Make the world of a name.

    Args:
        name: one of :func:`worlds`.
        root: folder or file that data are read from, for worlds of real images; None: the folder in MEMSPACE_DATA.

    Returns:
        The world.

    Raises:
        SettingsError: there is none of that name.
    """
    known = worlds()
    if name not in known:
        raise SettingsError(f"there is no world {name!r}", where="world", remedy=f"name one of {', '.join(known)}")
    return _WORLDS[name](None if root is None else Path(root))
