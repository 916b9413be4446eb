"""Pieces of work that say which process does them, and wait in the middle to be killed there."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from pathlib import Path

from memspace.errors import DataError
from memspace.zoo.stages.train import TrainingPiece

STEPS = 2  # ticks of the training before the first process that does the piece waits


@dataclass(frozen=True)
class MarkedPiece:
    """Does a piece and writes the process's id; with ``waits``, the first process stops in the middle for ever."""

    piece: TrainingPiece
    marks: Path
    name: str
    waits: bool = False

    @property
    def networks(self) -> int:
        return self.piece.networks

    def __call__(self) -> int:
        mine = self.marks / f"{self.name}.{os.getpid()}"
        first = not list(self.marks.glob(f"{self.name}.*"))
        ticks = 0

        def tick() -> None:
            nonlocal ticks
            ticks += 1
            if self.waits and first and ticks == STEPS:
                mine.touch()
                time.sleep(600.0)

        if not (self.waits and first):
            mine.touch()
        return self.piece(tick)


@dataclass(frozen=True)
class FailingPiece:
    """Fails with advice, and writes that it was tried."""

    marks: Path
    networks: int = 1

    def __call__(self) -> int:
        (self.marks / f"failing.{time.monotonic_ns()}").touch()
        raise DataError("the file is missing", where="failing.txt", remedy="fetch it again")
