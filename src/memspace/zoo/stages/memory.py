"""The stage ``memory``: networks on inputs of known factors, a row a network in the store."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from memspace.errors import SettingsError
from memspace.zoo.declaration import Zoo
from memspace.zoo.factored.cuts import SHARES
from memspace.zoo.factored.row import CUTS, MEASURED, memory_row
from memspace.zoo.factored.settings import FactoredSettings
from memspace.zoo.specification import NetworkSpec, settings_hash
from memspace.zoo.stage import NetworksPiece, stage, undone
from memspace.zoo.store import ZooStore
from memspace.zoo.work import data_of, parts_by_data

__all__ = ["MemoryPiece", "memory_pieces"]

MEMORY_VERSION = 1  # raised when the code of a measure changes what it gives
TOGETHER = 4  # networks of a piece


@dataclass(frozen=True)
class MemoryPiece(NetworksPiece):
    """Networks to measure at the end of their training.

    Args:
        settings: of the measures.
    """

    settings: FactoredSettings
    table = "memory"

    @property
    def version(self) -> str:
        """Hash of the settings and of what is measured."""
        return settings_hash([MEMORY_VERSION, MEASURED, CUTS, SHARES, asdict(self.settings)])

    def work(self, store: ZooStore, spec: NetworkSpec, tick: Callable[[], None]) -> None:
        """Measure a network.

        Args:
            store: that has the trained network.
            spec: of the network.
            tick: not called.

        Raises:
            SettingsError: the factors of the data set are not known.
        """
        data = data_of(spec.data, self.data_root)
        if data.factors is None:
            what, remedy = f"the factors of {spec.data!r} are not known", "declare networks on 'shapes'"
            raise SettingsError(what, where="zoo declaration, factored", remedy=remedy)
        _, states = store.states(spec.key)
        began = time.process_time()
        row = memory_row(spec, data, states[-1], self.settings)
        spent = time.process_time() - began
        store.add_rows(self.table, spec.key, [{**row, "version": self.version, "seconds": spent}])


@stage("memory", 6)
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
    everything = MemoryPiece(zoo.specs, store.folder, data_root, settings or FactoredSettings())
    due = undone(store, everything.table, everything.version)
    return [replace(everything, specs=part) for part in parts_by_data(zoo, due, TOGETHER)]
