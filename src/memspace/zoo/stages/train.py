"""Training: the networks of a zoo in groups, each kept as it is done."""

from __future__ import annotations

import platform
from collections import defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import torch

from memspace.zoo.declaration import Zoo
from memspace.zoo.specification import NetworkSpec
from memspace.zoo.stage import stage
from memspace.zoo.store import ZooStore
from memspace.zoo.training.group import train_group
from memspace.zoo.work import data_of

__all__ = ["TrainingPiece", "training_pieces"]

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


@stage("train", 0)
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


def _parts(specs: list[NetworkSpec]) -> Iterable[tuple[NetworkSpec, ...]]:
    for start in range(0, len(specs), LARGEST):
        yield tuple(specs[start : start + LARGEST])
