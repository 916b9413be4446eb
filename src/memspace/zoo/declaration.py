"""A zoo as declared in one TOML file: stars of networks around centres, a knob at a time."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from memspace.errors import SettingsError
from memspace.zoo.declared_file import read_declared, shipped_declarations
from memspace.zoo.specification import NetworkSpec

__all__ = ["KNOBS", "Zoo", "load_zoo", "shipped_zoos"]

KNOBS = ("width", "depth", "rate", "batch", "decay", "dropout", "label_noise", "size", "optimiser")
FIELDS = {f.name for f in fields(NetworkSpec)}


@dataclass(frozen=True)
class Zoo:
    """Networks to train, and what they are for.

    Args:
        name: of the zoo.
        about: what it is, in a sentence.
        specs: its networks, each once.
        block: key of a network → name of the block that declares it; the first, where several do.
        counted: what its networks hold of their labels is counted in the stage ``capacity``.
        without: groups of measures that its networks are not measured by; see ``ZooSettings``.
        factored: the factors of its inputs are known, and the stage ``memory`` measures what its networks make of them.
    """

    name: str
    about: str
    specs: tuple[NetworkSpec, ...]
    block: Mapping[str, str]
    counted: bool = False
    without: tuple[str, ...] = ()
    factored: bool = False


def shipped_zoos() -> tuple[str, ...]:
    """List the zoos that are part of the package.

    Returns:
        Their names.
    """
    return shipped_declarations("memspace.zoo")


def load_zoo(name: str | Path) -> Zoo:
    """Read a declaration.

    A file has ``name``, ``about``, a table ``every`` of values that all networks share, and blocks ``[[star]]``; with
    ``counted = true`` its networks' memory is counted too, with ``factored = true`` the stage ``memory`` runs, and
    ``without`` names groups of measures to leave out. A star has a name, a table ``centre``, a table ``vary`` (knob →
    values) and ``seeds``: the centre and, for each knob, the centre with each value of that knob, at every seed.
    ``more_seeds`` are further seeds of the centre alone.

    Args:
        name: of a shipped zoo, or path of a file.

    Returns:
        The zoo.

    Raises:
        DataError: there is no such file, or it is not TOML.
        SettingsError: a word or value in it is not known, or out of range.
    """
    return _zoo(read_declared(name, "memspace.zoo", "zoo", "zoo"), str(name))


def _zoo(content: dict[str, Any], where: str) -> Zoo:
    _known(content, {"name", "about", "counted", "factored", "without", "every", "star"}, where)
    specs: dict[str, NetworkSpec] = {}
    block: dict[str, str] = {}
    for star in content.get("star", []):
        _known(star, {"name", "centre", "vary", "seeds", "more_seeds"}, f"{where}, a star")
        label = str(star.get("name", "star"))
        for settings in _points(content.get("every", {}), star, f"{where}, star {label!r}"):
            spec = _spec(settings, f"{where}, star {label!r}")
            if spec.key not in specs:
                specs[spec.key], block[spec.key] = spec, label
    if not specs:
        raise SettingsError("it declares no network", where=where, remedy="add a [[star]] with a centre and seeds")
    name, about = str(content.get("name", where)), str(content.get("about", ""))
    without = content.get("without", [])
    if not isinstance(without, list) or not all(isinstance(group, str) for group in without):
        raise SettingsError("without is no list of names", where=where, remedy="list groups of measures")
    counted, factored = (content.get(word) is True for word in ("counted", "factored"))
    return Zoo(name, about, tuple(specs.values()), block, counted, tuple(without), factored)


def _points(every: Mapping[str, Any], star: Mapping[str, Any], where: str) -> Iterator[dict[str, Any]]:
    centre = {**every, **star.get("centre", {})}
    vary = star.get("vary", {})
    _known(vary, set(KNOBS), f"{where}, vary")
    for seed in (*star.get("seeds", [0]), *star.get("more_seeds", [])):
        yield {**centre, "seed": seed}
    for seed in star.get("seeds", [0]):
        for knob, values in vary.items():
            for value in values:
                yield {**centre, knob: value, "seed": seed}


def _spec(settings: dict[str, Any], where: str) -> NetworkSpec:
    _known(settings, FIELDS, where)
    try:
        return NetworkSpec(**settings)
    except TypeError as error:
        missing = str(error).rpartition(": ")[2]
        raise SettingsError(f"not given: {missing}", where=where, remedy="give it in centre or in every") from error


def _known(table: Mapping[str, Any], allowed: set[str], where: str) -> None:
    for word in table:
        if word not in allowed:
            listed = ", ".join(sorted(allowed))
            raise SettingsError(f"the word {word!r} is not known", where=where, remedy=f"use one of {listed}")
