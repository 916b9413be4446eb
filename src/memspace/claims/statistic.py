"""Declarations of statistics: a pure function of a table, its arguments and how it resamples.

A statistic is one file in ``statistics/``. Its arguments are a frozen dataclass, which is also the form of the section
``[statistic]`` of a registration::

    @dataclass(frozen=True)
    class Difference:
        outcome: str

    @statistic("difference", arguments=Difference, unit="1", estimator="mean of ...", limits=("...",))
    def difference(table: pl.DataFrame, arguments: Difference, sampling: Sampling) -> Evidence:
        '''...'''
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING, Any, TypeVar

from memspace.claims.evidence import Evidence
from memspace.errors import SettingsError

if TYPE_CHECKING:
    import polars as pl

    from memspace.claims.sampling import Sampling

__all__ = ["StatisticDeclaration", "declared_statistics", "statistic", "statistic_named"]

F = TypeVar("F", bound=Callable[..., Evidence])


@dataclass(frozen=True)
class StatisticDeclaration:
    """A statistic as declared.

    Args:
        name: what registrations call it.
        function: from table, arguments and sampling to evidence.
        arguments: dataclass of its arguments.
        unit: of the effect, ``"1"`` for a pure number.
        estimator: how the effect is computed, in a few words.
        source: keys of the bibliography.
        limits: what it cannot show, a sentence each.
    """

    name: str
    function: Callable[[pl.DataFrame, Any, Sampling], Evidence]
    arguments: type
    unit: str
    estimator: str
    source: str = ""
    limits: tuple[str, ...] = ()


_declared: dict[str, StatisticDeclaration] = {}


def statistic(
    name: str,
    *,
    arguments: type,
    unit: str,
    estimator: str,
    source: str = "",
    limits: tuple[str, ...] = (),
) -> Callable[[F], F]:
    """Declare a statistic; see :class:`StatisticDeclaration` for the arguments.

    Args:
        name: what registrations call it.
        arguments: dataclass of its arguments.
        unit: of the effect.
        estimator: how it is computed.
        source: keys of the bibliography.
        limits: what it cannot show.

    Returns:
        A decorator that registers the function and returns it unchanged.

    Raises:
        SettingsError: (by the decorator) the name is taken.
    """

    def declare(function: F) -> F:
        known = _declared.get(name)
        if known is not None and known.function.__module__ != function.__module__:
            raise SettingsError(
                f"there is a statistic {name!r} already", where=function.__module__, remedy="give it another name"
            )
        _declared[name] = StatisticDeclaration(name, function, arguments, unit, estimator, source, limits)
        return function

    return declare


def declared_statistics() -> tuple[StatisticDeclaration, ...]:
    """List the statistics.

    Returns:
        By name.
    """
    import_module("memspace.claims.statistics")  # as it is imported, each file declares its own
    return tuple(_declared[name] for name in sorted(_declared))


def statistic_named(name: str) -> StatisticDeclaration:
    """Look a statistic up.

    Args:
        name: of a registration.

    Returns:
        Its declaration.

    Raises:
        SettingsError: there is none.
    """
    for one in declared_statistics():
        if one.name == name:
            return one
    known = ", ".join(one.name for one in declared_statistics())
    raise SettingsError(f"there is no statistic {name[:60]!r}", where="statistic.name", remedy=f"choose one of {known}")
