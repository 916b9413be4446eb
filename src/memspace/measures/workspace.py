"""The values of one audit: given, or made once by the function that provides them, or absent with a reason."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from typing import Any, TypeVar

from memspace.attempt import attempt
from memspace.errors import SettingsError
from memspace.measurement import Measurement, Unmeasured
from memspace.measures.cost import Facts, Stage
from memspace.measures.declaration import Declared, MeasureDeclaration, declaration_of, provider_of
from memspace.measures.needs import needs_of
from memspace.value import Absent, Value

__all__ = ["Measured", "Workspace", "planned_stages"]

T = TypeVar("T")


class Measured(Mapping[str, Measurement]):
    """The measurements of a chapter made so far, by name; read by answers, findings and figures.

    Args:
        measurements: in order.
    """

    def __init__(self, measurements: Iterable[Measurement]) -> None:
        self._by_name = {m.name: m for m in measurements}

    def __getitem__(self, name: str) -> Measurement:
        return self._by_name[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._by_name)

    def __len__(self) -> int:
        return len(self._by_name)


class Workspace:
    """Values by type.

    Args:
        given: values that were read; an instance of :class:`Absent` is given together with the type it stands for.
    """

    def __init__(self, given: Mapping[Any, object]) -> None:
        self.given = dict(given)
        self._values: dict[Any, object] = dict(given)

    def get(self, kind: type[T]) -> T | Absent:
        """Return the value of a type: given, kept from before, or made now by its provider.

        Args:
            kind: the type.

        Returns:
            the value, or why it is absent.

        Raises:
            SettingsError: nothing provides the type.
        """
        if kind not in self._values:
            provider = provider_of(kind)
            if provider is None:
                what = f"nothing provides the value {getattr(kind, '__name__', kind)}"
                raise SettingsError(what, where="memspace.measures", remedy="declare a function with @provides")
            made = self.call(provider.function, str(getattr(kind, "__name__", kind)))
            self._values[kind] = Absent() if made is None else made
        return self._values[kind]  # type: ignore[return-value]

    def call(self, function: Callable[..., Any], name: str, measured: Measured | None = None) -> Any:
        """Call a declared function with the values it needs.

        Args:
            function: its parameters are annotated with the types of the values they take.
            name: what is measured, for the reason of a failure.
            measured: what is passed to parameters annotated :class:`Measured`.

        Returns:
            what the function returned; :class:`Absent` where a need is absent or the function failed.
        """
        arguments: dict[str, object] = {}
        for parameter, need in needs_of(function).items():
            value = measured if need.kind is Measured and measured is not None else self.get(need.kind)
            if isinstance(value, Absent) and not need.optional:
                return value
            arguments[parameter] = None if isinstance(value, Absent) and not need.explained else value
        done = attempt(name, lambda: function(**arguments))
        return Absent(done.reason, done.remedy) if isinstance(done, Unmeasured) else done

    def measure_all(
        self, functions: Iterable[Callable[..., Any]]
    ) -> tuple[tuple[Measurement, ...], tuple[Unmeasured, ...]]:
        """Make declared measures in order.

        Args:
            functions: each declared by ``@measure``.

        Returns:
            the measurements, and what is absent: numbers that are not defined here (NaN) too, each with its reason.

        Raises:
            SettingsError: a function is not declared.
        """
        measurements: list[Measurement] = []
        unmeasured: list[Unmeasured] = []
        for function in functions:
            declared = declaration_of(function)
            if not isinstance(declared, MeasureDeclaration):
                what = f"{function.__qualname__} is not declared by @measure"
                raise SettingsError(what, where="memspace.measures", remedy="declare it")
            for outcome in self.measure(declared, Measured(measurements)):
                if isinstance(outcome, Unmeasured):
                    unmeasured.append(outcome)
                elif math.isnan(outcome.value):
                    unmeasured.append(_undefined(outcome))
                else:
                    measurements.append(outcome)
        return tuple(measurements), tuple(unmeasured)

    def measure(self, declared: MeasureDeclaration, measured: Measured) -> list[Measurement | Unmeasured]:
        """Make a declared measure.

        Args:
            declared: the measure.
            measured: what the chapter has measured so far.

        Returns:
            its measurements, one for each member of a family; why it is absent; or nothing, where it does not apply.
        """
        done = self.call(declared.function, declared.name, measured)
        members = done if isinstance(done, Mapping) else {"": done}
        outcomes = (_stated(declared, suffix, value) for suffix, value in members.items())
        return [m for m in outcomes if m is not None]


def planned_stages(functions: Iterable[Callable[..., Any]], facts: Facts) -> tuple[Stage, ...]:
    """Return the stages of declared functions and of the values they need, each once, in the order they would run.

    Args:
        functions: measures, tables, and what answers and draws.
        facts: what the plan knows.

    Returns:
        the stages.
    """
    stages: list[Stage] = []
    seen: set[Any] = set()

    def visit(declared: Declared) -> None:
        if declared.function in seen:
            return
        seen.add(declared.function)
        for need in needs_of(declared.function).values():
            provider = provider_of(need.kind)
            if provider is not None:
                visit(provider)
        stages.extend(declared.stages(facts))

    for function in functions:
        visit(declaration_of(function))
    return tuple(stages)


def _stated(declared: MeasureDeclaration, suffix: str, value: Any) -> Measurement | Unmeasured | None:
    """The returned value of a measure, under its declared name, unit, estimator and source."""
    name = f"{declared.name}.{suffix}" if suffix else declared.name
    if value is None:
        return None
    if isinstance(value, Absent):
        return Unmeasured(name, value.reason, value.remedy) if value.reason else None
    if isinstance(value, Measurement) and value.name == name and value.unit.startswith(declared.unit):
        # an engine that states its own numbers, under the declared name and unit
        return replace(value, better=declared.better, shown=declared.shown)
    if not isinstance(value, Value):
        what = f"it returned a {type(value).__name__}"
        remedy = "return a Value, an Absent, a measurement of that name and unit, or a mapping of these"
        raise SettingsError(what, where=f"the measure {name!r}", remedy=remedy)
    return declared.stated(name, value)


def _undefined(found: Measurement) -> Unmeasured:
    reason = "it compares quantities that are zero, or equal for all examples, on this network and these data"
    remedy = "nothing: another network or more varied data would have it"
    return Unmeasured(found.name, found.note or reason, remedy)
