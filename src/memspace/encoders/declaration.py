"""Encoders as declared in one TOML file: every method at every strength, on every world, at every seed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from memspace.encoders.method import method_named
from memspace.encoders.specification import EncoderSpec
from memspace.errors import SettingsError
from memspace.zoo.declared_file import read_declared, shipped_declarations

__all__ = ["EncoderSet", "load_encoders", "shipped_sets"]

WORDS = ("name", "about", "seeds", "every", "worlds", "methods")
FIELDS = tuple(f.name for f in fields(EncoderSpec) if f.name not in ("world", "method", "strength", "seed"))


@dataclass(frozen=True)
class EncoderSet:
    """Encoders to train, and what they are for.

    Args:
        name: of the set.
        about: what it is, in a sentence.
        specs: its encoders, each once.
    """

    name: str
    about: str
    specs: tuple[EncoderSpec, ...]


def shipped_sets() -> tuple[str, ...]:
    """List the sets that are part of the package.

    Returns:
        Their names.
    """
    return shipped_declarations("memspace.encoders")


def load_encoders(name: str | Path) -> EncoderSet:
    """Read a declaration.

    A file has ``name``, ``about``, ``seeds``, a table ``every`` of settings that all encoders share, a table of
    settings for each world under ``worlds``, and under ``methods`` the strengths of each method.

    Args:
        name: of a shipped set, or path of a file.

    Returns:
        The set.

    Raises:
        DataError: there is no such file, or it is not TOML.
        SettingsError: a word or value in it is not known, or out of range.
    """
    return _declared(read_declared(name, "memspace.encoders", "set of encoders", "encoders"), str(name))


def _declared(content: Mapping[str, Any], where: str) -> EncoderSet:
    _known(content, WORDS, where)
    worlds, strengths = content.get("worlds", {}), content.get("methods", {})
    every, seeds = content.get("every", {}), content.get("seeds", [0])
    for table, word in ((worlds, "worlds"), (strengths, "methods"), (every, "every")):
        if not isinstance(table, dict):
            raise SettingsError(f"{word} is no table", where=where, remedy=f"write [{word}]")
    _known(every, FIELDS, f"{where}, every")
    specs: dict[str, EncoderSpec] = {}
    for world, settings in worlds.items():
        _known(settings, FIELDS, f"{where}, worlds.{world}")
        for method, values in strengths.items():
            method_named(method)
            for strength in values if isinstance(values, list) else [values]:
                for seed in seeds:
                    spec = EncoderSpec(
                        **{**every, **settings}, world=world, method=method, strength=strength, seed=seed
                    )
                    specs[spec.key] = spec
    if not specs:
        raise SettingsError("it declares no encoder", where=where, remedy="add [worlds.NAME] and [methods]")
    return EncoderSet(str(content.get("name", where)), str(content.get("about", "")), tuple(specs.values()))


def _known(table: Any, allowed: tuple[str, ...], where: str) -> None:
    for word in table if isinstance(table, dict) else ():
        if word not in allowed:
            raise SettingsError(
                f"the word {word!r} is not known", where=where, remedy=f"use one of {', '.join(sorted(allowed))}"
            )
