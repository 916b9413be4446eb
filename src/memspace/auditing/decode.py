"""Plain JSON back to dataclasses, every part checked against its declared type: a file may hold anything."""

from __future__ import annotations

import dataclasses
import math
import types
import typing
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any, TypeVar, get_args, get_origin

from memspace.measurement import Measurement

__all__ = ["decode"]

T = TypeVar("T")
# Fields that earlier writers of this schema did not know.
LATER = {
    "Finding": frozenset({"claims", "unless", "first", "otherwise"}),
    "Chapter": frozenset({"passages"}),
}
DEPTH = 20  # levels that values without a declared type may be nested


def decode(cls: type[T], value: Any, where: str) -> T:
    """Make an instance of a dataclass from the JSON form of its fields.

    None stands for NaN where a number is declared, since JSON has no NaN. All fields must be there and no others, so
    that a lost or misspelt one is not taken for its default.

    Args:
        cls: the dataclass.
        value: the JSON object.
        where: name of the value in messages.

    Returns:
        the instance.

    Raises:
        ValueError: a part is missing, unknown or of another type.
    """
    if not isinstance(value, dict):
        raise ValueError(f"{where} is not an object")
    types_of: dict[str, Any] = _hints(cls)  # type: ignore[arg-type]  # a class is hashable
    later = LATER.get(cls.__name__, frozenset()) - value.keys()
    types_of = {k: v for k, v in types_of.items() if k not in later}
    for key in value.keys() ^ types_of.keys():
        raise ValueError(f"{where} {'lacks' if key in types_of else 'has an unknown'} {str(key)[:40]!r}")
    return cls(**{k: _as(hint, value[k], f"{where}.{k}") for k, hint in types_of.items()})


@cache
def _hints(cls: Any) -> dict[str, Any]:
    hints = typing.get_type_hints(cls)
    return {f.name: hints[f.name] for f in dataclasses.fields(cls)}


def _as(hint: Any, value: Any, where: str) -> Any:
    origin, inner = get_origin(hint), get_args(hint)
    if hint is Any:
        return _plain(value, where, DEPTH)
    if origin in (types.UnionType, typing.Union):
        return _either(inner, value, where)
    if origin in (tuple, Sequence):
        return _several(origin, inner, value, where)
    if origin is Mapping:
        if not isinstance(value, dict):
            raise ValueError(f"{where} is not an object")
        return {_text(k, where): _as(inner[1], v, f"{where}.{k[:40]}") for k, v in value.items()}
    if hint is Measurement:
        return _measurement(value, where)
    if dataclasses.is_dataclass(hint):
        return decode(typing.cast(type, hint), value, where)
    if hint is float:
        return math.nan if value is None else _number(value, where)  # 3 stays 3: what is written again is the same
    if hint is str:
        return _text(value, where)
    if type(value) is not hint:
        raise ValueError(f"{where} is a {type(value).__name__}, not {hint.__name__}")
    return value


def _either(inner: tuple[Any, ...], value: Any, where: str) -> Any:
    """The first of several types that fits."""
    if value is None and type(None) in inner:
        return None
    reasons = []
    for hint in inner:
        if hint is not type(None):
            try:
                return _as(hint, value, where)
            except ValueError as error:
                reasons.append(str(error))
    raise ValueError(reasons[0])


def _several(origin: Any, inner: tuple[Any, ...], value: Any, where: str) -> Any:
    if not isinstance(value, list):
        raise ValueError(f"{where} is not a list")
    if origin is Sequence:
        return [_as(inner[0], v, where) for v in value]
    if inner[-1] is Ellipsis:
        return tuple(_as(inner[0], v, f"{where}[{k}]") for k, v in enumerate(value))
    if len(value) != len(inner):
        raise ValueError(f"{where} has {len(value)} parts, not {len(inner)}")
    return tuple(_as(hint, v, where) for hint, v in zip(inner, value, strict=True))


def _measurement(value: Any, where: str) -> Measurement:
    """As any dataclass; an interval with an open end reads as none known."""
    interval = value.get("interval") if isinstance(value, dict) else None
    if isinstance(interval, list) and len(interval) == 2 and None in interval:
        value = value | {"interval": None}
    if isinstance(value, dict):
        value = {k: v for k, v in value.items() if k != "citation"}  # spelt out from the source when written
    return decode(Measurement, value, where)


def _number(value: Any, where: str) -> Any:
    """The number as it is, where it is finite."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ValueError(f"{where} is not a number")
    try:
        finite = math.isfinite(value)
    except OverflowError:
        finite = False
    if not finite:
        raise ValueError(f"{where} is not a finite number")
    return value


def _text(value: Any, where: str) -> str:
    if not isinstance(value, str):
        raise ValueError(f"{where} is not text")
    try:
        value.encode("utf-8")
    except UnicodeEncodeError:
        raise ValueError(f"{where} holds half a character") from None
    return value


def _plain(value: Any, where: str, depth: int) -> Any:
    """Any JSON of a depth that everything downstream can walk."""
    if depth == 0:
        raise ValueError(f"{where} is nested too deeply")
    if isinstance(value, dict):
        return {_text(k, where): _plain(v, where, depth - 1) for k, v in value.items()}
    if isinstance(value, list):
        return [_plain(v, where, depth - 1) for v in value]
    if isinstance(value, str):
        return _text(value, where)
    return value if value is None or isinstance(value, bool) else _number(value, where)
