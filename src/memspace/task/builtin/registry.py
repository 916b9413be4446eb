"""Built-in tasks by name: each is a function that registers itself, in this package or in an extension."""

from __future__ import annotations

import pkgutil
from collections.abc import Callable, Mapping
from importlib import import_module

import memspace.task.builtin as package
from memspace.errors import SettingsError
from memspace.extensions import load_extensions
from memspace.progress import Progress
from memspace.task.builtin.options import BuildOptions
from memspace.task.task import Task

__all__ = ["Maker", "build", "builtin", "builtin_tasks"]

Maker = Callable[[BuildOptions, Progress], Task]
_TASKS: dict[str, Maker] = {}


def builtin(name: str) -> Callable[[Maker], Maker]:
    """Register a function as the built-in task of a name; use it as a decorator.

    Args:
        name: what a user types; it has no colon, which stands in ``module:attribute``.

    Returns:
        What registers ``make(options, progress) -> Task`` and gives it back; the first line of its docstring is what
        ``memspace tasks`` shows.

    Raises:
        SettingsError: the name has a colon, or is another task's.
    """

    def register(make: Maker) -> Maker:
        known = _TASKS.setdefault(name, make)
        same = (known.__module__, known.__qualname__) == (make.__module__, make.__qualname__)
        if ":" in name or not same:
            what = "has a colon" if ":" in name else f"is that of {known.__module__}"
            raise SettingsError(f"the name {name!r} of a built-in task {what}", where="builtin", remedy="rename it")
        _TASKS[name] = make
        return make

    return register


def builtin_tasks() -> Mapping[str, Maker]:
    """Return the built-in tasks by name, sorted, those of extensions included.

    Returns:
        Each name with the function that makes the task.
    """
    for module in pkgutil.iter_modules(package.__path__):
        import_module(f"{package.__name__}.{module.name}")
    load_extensions()
    return dict(sorted(_TASKS.items()))


def build(name: str, options: BuildOptions, progress: Progress) -> Task:
    """Build the built-in task of a name.

    Args:
        name: of one of :func:`builtin_tasks`.
        options: seed, sizes, where the data are.
        progress: what shows the training.

    Returns:
        The task with its trained network.

    Raises:
        KeyError: there is none of that name.
    """
    return builtin_tasks()[name](options, progress)
