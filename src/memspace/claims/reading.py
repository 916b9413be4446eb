"""Registrations read from TOML files, strictly: what is not known is refused in one sentence."""

from __future__ import annotations

import dataclasses
import tomllib
import typing
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from memspace.auditing.decode import decode
from memspace.claims.registration import Heading, Registration, StatisticCall
from memspace.claims.statistic import statistic_named
from memspace.errors import SettingsError

__all__ = ["REGISTERED", "chosen_registrations", "parse_registration", "read_registration", "registrations"]

REGISTERED = Path(__file__).parent / "registered"
LOCK = "hashes.toml"
_HEADING = {field.name for field in dataclasses.fields(Heading)}
SECTIONS: dict[str, Any] = {n: h for n, h in typing.get_type_hints(Registration).items() if n not in _HEADING}


def parse_registration(content: Mapping[str, Any], where: str) -> Registration:
    """Make a registration of the content of its file.

    Args:
        content: as TOML is read.
        where: named in messages.

    Returns:
        The registration, defaults filled in.

    Raises:
        SettingsError: a key is missing or unknown, or a value is of another type or out of its range.
    """
    try:
        return _put_together(content)
    except SettingsError as error:
        raise SettingsError(error.what, where=f"{where}, {error.where}", remedy=error.remedy) from error
    except ValueError as error:
        raise SettingsError(str(error), where=where, remedy="see the format in docs/claims.md") from error


def _put_together(content: Mapping[str, Any]) -> Registration:
    """The registration of its heading and sections; what is missing or unknown is a ValueError."""
    head = {key: value for key, value in content.items() if key not in SECTIONS}
    missing = [key for key in SECTIONS if key not in content]
    if missing:
        raise ValueError(f"the section [{missing[0]}] is missing")
    heading = _made(Heading, head, "registration")
    call = _call(content["statistic"])
    sections = {key: _made(kind, content[key], key) for key, kind in SECTIONS.items() if kind is not StatisticCall}
    return Registration(**vars(heading), statistic=call, **sections)


def _call(section: Any) -> StatisticCall:
    if not isinstance(section, dict) or not isinstance(section.get("name"), str):
        raise ValueError("the section [statistic] has no name")
    declared = statistic_named(section["name"])
    arguments = {key: value for key, value in section.items() if key != "name"}
    return StatisticCall(declared.name, _made(declared.arguments, arguments, "statistic"))


def _made(kind: Any, section: Any, where: str) -> Any:
    """An instance of a dataclass from a section, in which a field with a default may be left out."""
    if not isinstance(section, dict):
        raise ValueError(f"{where} is no section")
    filled = dict(section)
    for field in dataclasses.fields(kind):
        if field.name in filled:
            continue
        if field.default is not dataclasses.MISSING:
            filled[field.name] = _as_toml(field.default)
        elif field.default_factory is not dataclasses.MISSING:
            filled[field.name] = _as_toml(field.default_factory())
    return decode(kind, filled, where)


def _as_toml(value: Any) -> Any:
    return [_as_toml(v) for v in value] if isinstance(value, tuple) else value


def read_registration(path: Path) -> Registration:
    """Read the file of a registration.

    Args:
        path: of the file, named after the claim's id.

    Returns:
        The registration.

    Raises:
        SettingsError: it cannot be read, or says something that is not known.
    """
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        reason = " ".join(str(error).split())[:150]
        raise SettingsError(
            f"the registration cannot be read: {reason}", where=str(path), remedy="see the format in docs/claims.md"
        ) from error
    registration = parse_registration(content, path.name)
    if registration.id != path.stem:
        raise SettingsError(
            f"it is called {path.stem!r} but its id is {registration.id!r}",
            where=path.name,
            remedy="name the file after the id",
        )
    return registration


def registrations(folder: Path = REGISTERED) -> tuple[Registration, ...]:
    """Read all registrations of a folder.

    Args:
        folder: of the files; the package's own unless given.

    Returns:
        By id.

    Raises:
        SettingsError: there is no such folder, or a file cannot be read.
    """
    if not folder.is_dir():
        raise SettingsError("there is no such folder", where=str(folder), remedy="give a folder of registrations")
    return tuple(read_registration(path) for path in sorted(folder.glob("*.toml")) if path.name != LOCK)


def chosen_registrations(ids: Iterable[str], folder: Path = REGISTERED) -> tuple[Registration, ...]:
    """Read the registrations that are asked for.

    Args:
        ids: each whole, or a beginning that only one has; none: all.
        folder: of the files.

    Returns:
        By id.

    Raises:
        SettingsError: an id is not known, or more than one begins so.
    """
    known = {registration.id: registration for registration in registrations(folder)}
    chosen: set[str] = set()
    for wanted in ids:
        matching = [wanted] if wanted in known else [id for id in known if id.startswith(wanted)]
        if len(matching) != 1:
            what = f"{len(matching)} claims begin with" if matching else "there is no claim"
            listed = ", ".join(matching or known) or "none is registered there"
            raise SettingsError(f"{what} {wanted[:60]!r}", where=str(folder), remedy=f"choose one of: {listed}")
        chosen.add(matching[0])
    return tuple(known[id] for id in (sorted(chosen) or known))
