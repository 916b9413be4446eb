"""The table of representations of F: each is a class that registers itself by its name.

A package adds one by one module, which an entry point names (see ``memspace.extensions``)::

    @representation
    class Banded(Representation):
        name = "banded"

        def build(self, context: BuildContext) -> FisherMetric: ...

It is then ``memspace.fisher(task, "banded")``; ``memspace.testing.check_metric`` holds what it builds to the contract.
"""

from __future__ import annotations

import pkgutil
from abc import ABC, abstractmethod
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from typing import ClassVar, TypeVar

from memspace.errors import SettingsError
from memspace.extensions import load_extensions
from memspace.metric.context import BuildContext
from memspace.metric.metric import FisherMetric

__all__ = [
    "MemoryNeed",
    "Representation",
    "check_need",
    "known_representations",
    "representation",
    "representation_named",
]

BUILT_IN = "memspace.metric.representations"


@dataclass(frozen=True)
class MemoryNeed:
    """Memory that a representation holds.

    Args:
        bytes: how much.
        what: the object held, as messages name it.
        instead: representations that need less, as messages name them.
    """

    bytes: int
    what: str
    instead: str = "ekfac or implicit"


class Representation(ABC):
    """One way to hold F.

    Attributes:
        name: the name that users write.
    """

    name: ClassVar[str]

    def need(self, context: BuildContext) -> MemoryNeed | None:
        """Return the memory it must hold, before anything is read.

        Args:
            context: the network, the kind of cotangents, and the means to read it.

        Returns:
            The memory; None where it is little.
        """
        return None

    @abstractmethod
    def build(self, context: BuildContext) -> FisherMetric:
        """Read the network and return the metric.

        Args:
            context: the network, the kind of cotangents, and the means to read it.

        Returns:
            F of the examples; the docstring of its class says what is exact.
        """


_known: dict[str, Representation] = {}
R = TypeVar("R", bound=type[Representation])


def representation(kind: R) -> R:
    """Register a class of representation by its ``name``.

    Args:
        kind: the class; it is instantiated without arguments.

    Returns:
        The class.

    Raises:
        SettingsError: another class has the same name.
    """
    known = _known.get(kind.name)
    if known is not None and type(known).__qualname__ != kind.__qualname__:
        what = f"there are two representations {kind.name!r}: {type(known).__qualname__} and {kind.__qualname__}"
        raise SettingsError(what, where="memspace.fisher", remedy="give one of them another name")
    _known[kind.name] = kind()
    return kind


@cache
def _import_built_in() -> None:
    """Import the modules of the representations that memspace ships, once."""
    package = import_module(BUILT_IN)
    for module in pkgutil.iter_modules(package.__path__):
        import_module(f"{BUILT_IN}.{module.name}")


def known_representations() -> tuple[str, ...]:
    """Return the names of all representations, those of extensions included.

    Returns:
        In alphabetical order.
    """
    _import_built_in()
    load_extensions()
    return tuple(sorted(_known))


def representation_named(name: str) -> Representation:
    """Return the representation of that name.

    Args:
        name: as a user writes it.

    Returns:
        The representation.

    Raises:
        SettingsError: no representation has that name; the message lists them.
    """
    _import_built_in()
    if name not in _known and name not in known_representations():  # extensions are looked for only where needed
        what = f"unknown representation {name!r}; one of {', '.join(known_representations())}"
        raise SettingsError(what, where="fisher", remedy="give one of these")
    return _known[name]


def check_need(chosen: Representation, context: BuildContext) -> None:
    """Refuse a representation that memory does not hold.

    Args:
        chosen: the representation.
        context: the network and the memory budget.

    Raises:
        MemoryBudgetError: it needs more than is allowed; the remedy names what needs less.
    """
    need = chosen.need(context)
    if need is not None:
        context.check_memory(need.bytes, need.what, f"the representation {need.instead}")
