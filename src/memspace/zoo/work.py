"""Pieces of work on a zoo: each is done by one process, keeps what it finishes, and can be done again."""

from __future__ import annotations

import platform
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import torch

from memspace.zoo.declaration import Zoo
from memspace.zoo.registry import ZooData, dataset_named
from memspace.zoo.specification import NetworkSpec
from memspace.zoo.store import ZooStore
from memspace.zoo.training.group import train_group

__all__ = ["TrainingPiece", "data_of", "parts_by_data", "training_pieces"]

LARGEST = 24  # networks in a group: more gain little, and leave the caches


@dataclass(frozen=True)
class TrainingPiece:
    """Networks of one group to train.

    Args:
        specs: the networks.
        blocks: of the declaration, one a network.
        folder: of the store.
        data_root: where data sets lie.
        zoo: name of the declaration.
    """

    specs: tuple[NetworkSpec, ...]
    blocks: tuple[str, ...]
    folder: Path
    data_root: Path | None
    zoo: str = ""

    @property
    def cost(self) -> float:
        """Roughly how long it takes, in any unit: pieces that take longest are begun first."""
        spec = self.specs[0]
        positions = 24 if spec.family in ("recurrent", "transformer") else 1
        return len(self.specs) * spec.width * spec.depth * spec.batch * positions

    @property
    def networks(self) -> int:
        """How many networks it is."""
        return len(self.specs)

    def __call__(self, tick: Callable[[], None] = lambda: None) -> int:
        """Train the networks that are not in the store yet, and keep each as it is done.

        Args:
            tick: called now and then; may raise to stop.

        Returns:
            How many were trained.
        """
        store = ZooStore(self.folder)
        there = store.trained_keys()
        block = {s.key: b for s, b in zip(self.specs, self.blocks, strict=True)}
        missing = [s for s in self.specs if s.key not in there]
        if not missing:
            return 0
        about = {"zoo": self.zoo, "machine": platform.machine(), "threads": torch.get_num_threads()}
        for trained in train_group(missing, data_of(missing[0].data, self.data_root), tick):
            store.add_trained(trained, block[trained.spec.key], about)
        return len(missing)


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


def training_pieces(zoo: Zoo, store: ZooStore, data_root: Path | None) -> list[TrainingPiece]:
    """Cut what is not trained yet into pieces, the longest first.

    Args:
        zoo: the declaration.
        store: what is there.
        data_root: where data sets lie.

    Returns:
        The pieces.
    """
    there = store.trained_keys()
    groups: dict[tuple[object, ...], list[NetworkSpec]] = defaultdict(list)
    for spec in zoo.specs:
        if spec.key not in there:
            groups[spec.group].append(spec)
    pieces = [
        TrainingPiece(part, tuple(zoo.block[s.key] for s in part), store.folder, data_root, zoo.name)
        for specs in groups.values()
        for part in _parts(specs)
    ]
    return sorted(pieces, key=lambda p: -p.cost)


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


def _parts(specs: list[NetworkSpec]) -> Iterable[tuple[NetworkSpec, ...]]:
    for start in range(0, len(specs), LARGEST):
        yield tuple(specs[start : start + LARGEST])
