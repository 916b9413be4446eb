"""The stage ``memory``: networks on inputs of known factors, a row a network in the store."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

from memspace.errors import SettingsError
from memspace.zoo.declaration import Zoo
from memspace.zoo.factored.cuts import SHARES
from memspace.zoo.factored.row import CUTS, MEASURED, memory_row
from memspace.zoo.factored.settings import FactoredSettings
from memspace.zoo.specification import NetworkSpec
from memspace.zoo.store import ZooStore
from memspace.zoo.work import data_of, parts_by_data

__all__ = ["MemoryPiece", "memory_pieces"]

MEMORY_VERSION = 1  # raised when the code of a measure changes what it gives
TOGETHER = 4  # networks of a piece


@dataclass(frozen=True)
class MemoryPiece:
    """Networks to measure at the end of their training.

    Args:
        specs: the networks, of one data set.
        folder: of the store.
        data_root: where data sets lie.
        settings: of the measures.
    """

    specs: tuple[NetworkSpec, ...]
    folder: Path
    data_root: Path | None
    settings: FactoredSettings

    @property
    def networks(self) -> int:
        """How many networks it is."""
        return len(self.specs)

    def __call__(self, tick: Callable[[], None] = lambda: None) -> int:
        """Measure and keep what is not in the store yet.

        Args:
            tick: called after every network; may raise to stop.

        Returns:
            How many networks were measured.

        Raises:
            SettingsError: the factors of the data set are not known.
        """
        store, version = ZooStore(self.folder), _version(self.settings)
        done = 0
        for spec in self.specs:
            if store.version_at("memory", spec.key) == version:
                continue
            data = data_of(spec.data, self.data_root)
            if data.factors is None:
                what, remedy = f"the factors of {spec.data!r} are not known", "declare networks on 'shapes'"
                raise SettingsError(what, where="zoo declaration, factored", remedy=remedy)
            _, states = store.states(spec.key)
            began = time.process_time()
            row = memory_row(spec, data, states[-1], self.settings)
            spent = time.process_time() - began
            store.add_rows("memory", spec.key, [{**row, "version": version, "seconds": spent}])
            done += 1
            tick()
        return done


def memory_pieces(
    zoo: Zoo, store: ZooStore, data_root: Path | None, settings: FactoredSettings | None = None
) -> list[MemoryPiece]:
    """Cut the trained networks without a row into pieces; of zoos that are declared ``factored``.

    Args:
        zoo: the declaration.
        store: what is there.
        data_root: where data sets lie.
        settings: of the measures; None: the defaults.

    Returns:
        The pieces; none where the zoo is not declared so.
    """
    if not zoo.factored:
        return []
    settings = settings or FactoredSettings()
    due = store.trained_keys() - store.keys_at("memory", _version(settings))
    return [MemoryPiece(part, store.folder, data_root, settings) for part in parts_by_data(zoo, due, TOGETHER)]


def _version(settings: FactoredSettings) -> str:
    content = [MEMORY_VERSION, MEASURED, CUTS, SHARES, asdict(settings)]
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:12]
