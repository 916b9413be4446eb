"""Stages of the work on a zoo by name, and what their pieces of work have in common."""

from __future__ import annotations

import pkgutil
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import ClassVar

from memspace.zoo.declaration import Zoo
from memspace.zoo.engine import Piece
from memspace.zoo.specification import NetworkSpec
from memspace.zoo.store import ZooStore

__all__ = ["NetworksPiece", "PiecesMaker", "stage", "stages", "undone"]

PiecesMaker = Callable[[Zoo, ZooStore, Path | None], Sequence[Piece]]
_STAGES: dict[str, tuple[int, PiecesMaker]] = {}


def stage(name: str, place: int) -> Callable[[PiecesMaker], PiecesMaker]:
    """Register a function that cuts what a stage has to do into pieces; use it as a decorator.

    Args:
        name: as ``--stages`` has it, and ``STAGES`` of :mod:`memspace.commands.zoo`.
        place: among the stages, in whose order they run.

    Returns:
        What registers ``pieces(zoo, store, data_root)`` and gives it back. A piece holds what is not in the store yet.
    """

    def register(pieces: PiecesMaker) -> PiecesMaker:
        _STAGES[name] = place, pieces
        return pieces

    return register


def stages() -> dict[str, PiecesMaker]:
    """List the stages.

    Returns:
        What cuts each into pieces, by name, in the order in which they run.
    """
    import memspace.zoo.stages as package

    for module in pkgutil.iter_modules(package.__path__):
        import_module(f"{package.__name__}.{module.name}")
    return {name: pieces for name, (_, pieces) in sorted(_STAGES.items(), key=lambda item: item[1][0])}


@dataclass(frozen=True)
class NetworksPiece(ABC):
    """Trained networks that a stage looks at one after the other; the rows of each are kept as they are made.

    Args:
        specs: the networks, of one data set.
        folder: of the store.
        data_root: where data sets lie.
    """

    specs: tuple[NetworkSpec, ...]
    folder: Path
    data_root: Path | None
    table: ClassVar[str]  # that tells which networks are done

    @property
    def networks(self) -> int:
        """How many networks it is."""
        return len(self.specs)

    @property
    def version(self) -> str:
        """By which version of code and settings rows are made; empty where any row will do."""
        return ""

    @abstractmethod
    def work(self, store: ZooStore, spec: NetworkSpec, tick: Callable[[], None]) -> None:
        """Make the rows of a network and add them to the store.

        Args:
            store: that has the trained network.
            spec: of the network.
            tick: called now and then where a network takes long; may raise to stop.
        """

    def __call__(self, tick: Callable[[], None] = lambda: None) -> int:
        """Do what is not in the store yet.

        Args:
            tick: called after every network; may raise to stop.

        Returns:
            How many networks were looked at.
        """
        store, due = ZooStore(self.folder), 0
        for spec in self.specs:
            if not self._done(store, spec):
                self.work(store, spec, tick)
                due += 1
                tick()
        return due

    def _done(self, store: ZooStore, spec: NetworkSpec) -> bool:
        if self.version:
            return store.version_at(self.table, spec.key) == self.version
        return (store.folder / self.table / f"{spec.key}.parquet").is_file()


def undone(store: ZooStore, table: str, version: str = "") -> Collection[str]:
    """List the trained networks that a stage has not looked at.

    Args:
        store: of the zoo.
        table: of the stage.
        version: by which its rows must have been made; empty: any.

    Returns:
        Keys.
    """
    trained = store.trained_keys()
    return trained - (store.keys_at(table, version) if version else store.names(table))
