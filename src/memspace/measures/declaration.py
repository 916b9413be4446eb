"""Declarations: what a measure needs, what it costs, and what its number means, next to the code that computes it.

A measure is a pure function. The annotations of its parameters say what it needs; each is a *value* (see
``memspace.measures.values``) that the audit has read, or that another declared function provides::

    @measure("complexity.information", chapter="complexity", unit="bits", estimator="½ Σ log2(1+λ/γ)",
             source="mackay1992")
    def information(curvature: Curvature, damping: DampingChoice) -> Value:
        '''Information that the weights took from the data under the prior N(0, I/α).'''
        return Value(information_bits(curvature.metric, damping.value), curvature.n)

A need that is absent makes the measure absent for the same reason; a need annotated ``X | None`` does not, and one
annotated ``X | Absent`` is passed the reason. The plan, the report, the tables, ``memspace measures`` and the
documentation all read the declaration.
"""

from __future__ import annotations

import typing
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

from memspace.errors import SettingsError
from memspace.measurement import Measurement, stated
from memspace.measures.cost import Facts, Stage
from memspace.measures.needs import place, without
from memspace.value import Absent, Value

__all__ = [
    "Declared",
    "MeasureDeclaration",
    "Provider",
    "TableDeclaration",
    "declaration_of",
    "declared_measures",
    "measure",
    "measurement_of",
    "provider_of",
    "provides",
    "register_units",
    "table",
    "truth",
    "units_of_columns",
]

F = TypeVar("F", bound=Callable[..., Any])
CostOf = Callable[[Facts], Stage | Sequence[Stage] | None]
BETTER = ("", "larger", "smaller")
SHOWN = ("number", "share", "ratio")


@dataclass(frozen=True)
class Declared:
    """A function that values are passed to.

    Args:
        function: the function as written.
        cost: the stages it runs of its own, from the plan's facts; None: it runs nothing over the data.
    """

    function: Callable[..., Any]
    cost: CostOf | None

    def stages(self, facts: Facts) -> tuple[Stage, ...]:
        """Return the stages this function runs, without those of the values it needs.

        Args:
            facts: what the plan knows.

        Returns:
            the stages; empty where it runs nothing over the data.
        """
        stages = None if self.cost is None else self.cost(facts)
        return () if stages is None else (stages,) if isinstance(stages, Stage) else tuple(stages)


@dataclass(frozen=True)
class Provider(Declared):
    """A function whose return value other declared functions need.

    Args:
        kind: the type it provides.
    """

    kind: Any


@dataclass(frozen=True)
class MeasureDeclaration(Declared):
    """A measure as declared.

    Args:
        name: dotted and unique, for example ``"complexity.information"``.
        chapter: id of the chapter that shows it.
        unit: for example ``"nats"``; ``"1"`` for a pure number.
        estimator: how it is computed, for example ``"½ Σ log2(1+λ/γ)"``.
        source: keys of the bibliography, separated by commas; or a citation in words.
        better: ``"larger"``, ``"smaller"``, or empty where neither is better.
        shown: how a person reads it: ``"number"``, ``"share"`` (a percentage) or ``"ratio"``.
    """

    name: str
    chapter: str
    unit: str
    estimator: str
    source: str = ""
    better: str = ""
    shown: str = "number"

    @property
    def meaning(self) -> str:
        """The first line of the function's docstring."""
        return (self.function.__doc__ or "").strip().split("\n")[0]

    @property
    def truth(self) -> str | None:
        """The measurement on many fresh examples that tells whether this one is right, where one was stated."""
        name = getattr(self.function, "__truth__", None)
        return self.name if name == "" else name

    def stated(self, name: str, value: Value) -> Measurement:
        """Give a value of this measure its unit, estimator and source.

        Args:
            name: the measure's, or that of a family's member.
            value: the number with its error.

        Returns:
            the measurement.
        """
        measurement = stated(name, value, self.unit, self.estimator, self.source)
        return replace(measurement, better=self.better, shown=self.shown)


@dataclass(frozen=True)
class TableDeclaration(Declared):
    """A function that returns columns of a table.

    Args:
        name: of the table, for example ``"examples"``; several functions may add columns to one table.
        units: column → unit; empty for counts, indices and pure numbers.
    """

    name: str
    units: Mapping[str, str] = field(default_factory=dict)


_measures: dict[str, MeasureDeclaration] = {}
_providers: dict[Any, Provider] = {}
_units: dict[str, str] = {}


def measure(
    name: str,
    *,
    chapter: str,
    unit: str,
    estimator: str,
    source: str = "",
    better: str = "",
    shown: str = "number",
    cost: CostOf | None = None,
) -> Callable[[F], F]:
    """Declare a measure; see :class:`MeasureDeclaration` for the arguments.

    The function returns a :class:`Value`, an :class:`Absent`, or, for a family of measures, a mapping from a suffix
    to either: the suffix ``"train"`` of the family ``"regression.r2"`` becomes ``regression.r2.train``.

    Args:
        name: see :class:`MeasureDeclaration`.
        chapter: id of the chapter.
        unit: unit of the value.
        estimator: how it is computed.
        source: keys of the bibliography.
        better: which direction is better.
        shown: how the number is displayed.
        cost: the stages that the function itself runs, from the plan's facts.

    Returns:
        a decorator that registers the function and returns it unchanged.

    Raises:
        SettingsError: the name is taken by another function, or a word is missing or not one of those known.
    """

    def declare(function: F) -> F:
        declaration = MeasureDeclaration(function, cost, name, chapter, unit, estimator, source, better, shown)
        _check(declaration)
        _measures[name] = declaration
        return _attached(function, declaration)

    return declare


def provides(cost: CostOf | None = None) -> Callable[[F], F]:
    """Declare a function whose return value several declared functions share; it runs once per audit.

    The annotation of the return value names the type it provides: ``-> NoiseCurve | Absent``.

    Args:
        cost: the stages that the function itself runs, from the plan's facts.

    Returns:
        a decorator that registers the function and returns it unchanged.

    Raises:
        SettingsError: another function provides the same type.
    """

    def declare(function: F) -> F:
        kind = without(typing.get_type_hints(function)["return"], (Absent, type(None)))
        provider = Provider(function, cost, kind)
        known = _providers.get(kind)
        if known is not None and place(known.function) != place(function):
            what = f"{place(known.function)} and {place(function)} both provide {kind.__name__}"
            raise SettingsError(what, where="memspace.measures.provides", remedy="return a type of its own")
        _providers[kind] = provider
        return _attached(function, provider)

    return declare


def table(name: str, units: Mapping[str, str] | None = None, *, cost: CostOf | None = None) -> Callable[[F], F]:
    """Declare a function that returns columns ``{column: sequence}`` of a table.

    Args:
        name: of the table: a file ``NAME.parquet`` of the run folder.
        units: column → unit, for columns that have one.
        cost: the stages that the function itself runs, from the plan's facts.

    Returns:
        a decorator that registers the units and returns the function unchanged.
    """

    def declare(function: F) -> F:
        _units.update(units or {})
        return _attached(function, TableDeclaration(function, cost, name, units or {}))

    return declare


def truth(name: str = "") -> Callable[[F], F]:
    """State what tells whether a measure's interval holds: a measurement on many examples that were not used for it.

    The field trial compares the two.

    Args:
        name: of that measurement; empty: the measure itself, of which the audit sees a sample.

    Returns:
        a decorator that returns the function unchanged; it goes below ``@measure``.
    """

    def declare(function: F) -> F:
        function.__truth__ = name  # type: ignore[attr-defined]
        return function

    return declare


def declared_measures() -> tuple[MeasureDeclaration, ...]:
    """Return every measure registered so far.

    Returns:
        the declarations, in the order of registration.
    """
    return tuple(_measures.values())


def register_units(units: Mapping[str, str]) -> None:
    """State the units of columns that are written into tables outside of an audit's chapters.

    Args:
        units: column → unit.
    """
    _units.update(units)


def provider_of(kind: Any) -> Provider | None:
    """Return the function that provides values of a type.

    Args:
        kind: the type.

    Returns:
        the provider; None where there is none.
    """
    return _providers.get(kind)


def units_of_columns() -> Mapping[str, str]:
    """Return the units of the columns of all declared tables.

    Returns:
        column → unit.
    """
    return dict(_units)


def declaration_of(function: Callable[..., Any]) -> Declared:
    """Return the declaration of a function.

    Args:
        function: declared or not.

    Returns:
        its declaration; without one, a declaration of no cost.
    """
    declaration = getattr(function, "__declared__", None)
    return declaration if isinstance(declaration, Declared) else Declared(function, None)


def measurement_of(function: Callable[..., Any], value: Value) -> Measurement:
    """Return a value under the name, unit, estimator and source of a declared measure, for use outside an audit.

    Args:
        function: declared by :func:`measure`.
        value: the number with its error.

    Returns:
        the measurement.

    Raises:
        SettingsError: the function is not a declared measure.
    """
    declared = declaration_of(function)
    if not isinstance(declared, MeasureDeclaration):
        raise SettingsError(f"{place(function)} is not a measure", where="memspace.measures", remedy="declare it")
    return declared.stated(declared.name, value)


def _attached(function: F, declaration: Declared) -> F:
    function.__declared__ = declaration  # type: ignore[attr-defined]
    return function


def _check(declared: MeasureDeclaration) -> None:
    where = f"the measure {declared.name!r}"
    known = _measures.get(declared.name)
    if known is not None and place(known.function) != place(declared.function):
        what = f"it is declared by {place(known.function)} and by {place(declared.function)}"
        raise SettingsError(what, where=where, remedy="give one of them another name")
    for word in ("name", "chapter", "unit", "estimator"):
        if not getattr(declared, word):
            raise SettingsError(f"its {word} is empty", where=where, remedy=f"declare the {word}")
    for word, allowed in (("better", BETTER), ("shown", SHOWN)):
        if getattr(declared, word) not in allowed:
            listed = ", ".join(a or "''" for a in allowed)
            raise SettingsError(f"{word} is one of {listed}", where=where, remedy="declare one of these")
