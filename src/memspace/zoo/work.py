"""Data sets read once a process, and networks in parts of one data set each."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection
from functools import lru_cache
from pathlib import Path

from memspace.zoo.declaration import Zoo
from memspace.zoo.registry import ZooData, dataset_named
from memspace.zoo.specification import NetworkSpec

__all__ = ["data_of", "parts_by_data"]


@lru_cache(maxsize=8)
def data_of(name: str, root: Path | None) -> ZooData:
    """Read a data set once a process.

    Args:
        name: of it.
        root: where data sets lie.

    Returns:
        The data set.
    """
    return dataset_named(name)(root)


def parts_by_data(zoo: Zoo, due: Collection[str], together: int) -> list[tuple[NetworkSpec, ...]]:
    """Cut networks into parts of one data set each.

    Args:
        zoo: the declaration, whose order is kept.
        due: keys of the networks.
        together: networks of a part, at most.

    Returns:
        The parts.
    """
    of_data: dict[str, list[NetworkSpec]] = defaultdict(list)
    for spec in zoo.specs:
        if spec.key in due:
            of_data[spec.data].append(spec)
    return [
        tuple(specs[start : start + together]) for specs in of_data.values() for start in range(0, len(specs), together)
    ]
