"""``memspace.train_zoo``: train and measure a declared zoo of networks, kept in a store."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, ClassVar

from memspace.arguments import check_fields, typed
from memspace.display import Columns, Shown
from memspace.limits import COUNT, one_of
from memspace.progress import Progress, Silent
from memspace.zoo.declaration import Zoo, load_zoo
from memspace.zoo.engine import Piece, engine_named, run_pieces
from memspace.zoo.stage import stages
from memspace.zoo.store import ZooStore

__all__ = ["STAGES", "TrainedZoo", "WorkSettings", "train_zoo"]

STAGES = tuple(stages())


@dataclass(frozen=True)
class WorkSettings:
    """How a zoo is worked on.

    Args:
        workers: processes, of one thread each.
        engine: what runs them: ``"local"``, or ``"ray"``, for which the store's folder must be reached by all machines.
        data_root: folder that holds the data sets; None: the environment variable MEMSPACE_DATA.
        stages: of ``STAGES``, in order.

    Raises:
        SettingsError: a value is not known or out of range.
    """

    workers: Annotated[int, COUNT] = 2
    engine: str = "local"
    data_root: Path | None = None
    stages: tuple[str, ...] = STAGES
    known: ClassVar[tuple[str, ...]] = STAGES

    def __post_init__(self) -> None:
        check_fields(self)
        engine_named(self.engine)
        for stage in self.stages:
            one_of(stage, self.known, "stage")


@dataclass(frozen=True, repr=False)
class TrainedZoo(Shown):
    """A zoo and what of it is in the store.

    Args:
        declared: the zoo.
        store: its folder.
    """

    declared: Zoo
    store: ZooStore

    def _title(self) -> str:
        there = self.store.trained_keys() & {s.key for s in self.declared.specs}
        return f"zoo {self.declared.name}: {len(there)} of {len(self.declared.specs)} networks trained"

    def _tables(self) -> Mapping[str, Callable[[], Columns]]:
        return {"blocks": self._blocks}

    def to_dict(self) -> dict[str, Any]:
        """Give plain JSON types.

        Returns:
            How many networks each block declares, has trained, and has at the target.
        """
        blocks = self._blocks()
        rows = [dict(zip(blocks, values, strict=True)) for values in zip(*blocks.values(), strict=True)]
        return {"zoo": self.declared.name, "folder": str(self.store.folder), "blocks": rows}

    def _blocks(self) -> Columns:
        """A row a block: networks declared, trained, and at the target."""
        rows = self.store.rows("trained")
        trained = dict(zip(rows["key"], rows["reached"], strict=True)) if len(rows) else {}
        names = list(dict.fromkeys(self.declared.block.values()))
        of = {name: [k for k, b in self.declared.block.items() if b == name] for name in names}
        return {
            "block": names,
            "declared": [len(of[n]) for n in names],
            "trained": [sum(k in trained for k in of[n]) for n in names],
            "at_target": [sum(bool(trained.get(k)) for k in of[n]) for n in names],
        }


@typed
def train_zoo(
    name: str | Path = "standard",
    *,
    out: str | Path,
    settings: WorkSettings | None = None,
    progress: Progress | None = None,
) -> TrainedZoo:
    """Train the networks of a declared zoo and measure what became of them; what the store holds is not repeated.

    Args:
        name: of a shipped zoo (``"standard"``, ``"small"``), or path of a declaration.
        out: folder of the store.
        settings: workers, engine, stages.
        progress: where the work reports.

    Returns:
        The zoo with its store.

    Raises:
        DataError: there is no such zoo, or its data sets are not found.
        SettingsError: the declaration has a word or value that is not known.
        WorkerError: a process was killed, or no Ray cluster answers; the same call goes on.
        MissingPackageError: Ray is asked for and not installed.
        OutputError: the folder cannot be written.
    """
    chosen, progress = settings or WorkSettings(), progress or Silent()
    declared, store = load_zoo(name), ZooStore(out)
    for stage in chosen.stages:
        pieces = _pieces(stage, declared, ZooStore(store.folder.absolute()), chosen)
        run_pieces(pieces, engine=chosen.engine, workers=chosen.workers, title=f"zoo: {stage}", progress=progress)
    return TrainedZoo(declared, store)


def _pieces(stage: str, declared: Zoo, store: ZooStore, settings: WorkSettings) -> Sequence[Piece]:
    root = settings.data_root or os.environ.get("MEMSPACE_DATA")  # other machines have another environment and folder
    data_root = None if root is None else Path(root).absolute()
    return stages()[stage](declared, store, data_root)
