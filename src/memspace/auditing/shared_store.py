"""The run folder of several processes: process 0 reads and writes it and informs the others."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any, TypeVar

from torch import Tensor

from memspace.auditing.results import Chapter, Results
from memspace.auditing.store import Store
from memspace.files import locked
from memspace.passes.processes import Processes, current

__all__ = ["SharedStore", "open_store"]

T = TypeVar("T")


@contextmanager
def open_store(folder: Path, key: Mapping[str, Any], *, fresh: bool = False) -> Iterator[Store]:
    """Open the run folder of this process, or of its process group; no other run works there meanwhile.

    Args:
        folder: created if missing.
        key: what the results depend on.
        fresh: whether partial work is dropped.

    Yields:
        the store.

    Raises:
        RunFolderError: another run is at work there, or see :class:`memspace.auditing.store.Store`.
        OutputError: the folder cannot be written.
    """
    group = current()
    with locked(folder) if group.rank == 0 else nullcontext():
        yield Store(folder, key, fresh=fresh) if group.size == 1 else SharedStore(folder, key, group, fresh=fresh)


class SharedStore(Store):
    """A :class:`Store` that all processes of a group call alike; process 0 alone writes, and fails to write.

    Args:
        folder: created if missing.
        key: what the results depend on.
        group: the processes.
        fresh: whether partial work is dropped.
    """

    def __init__(self, folder: Path, key: Mapping[str, Any], group: Processes, *, fresh: bool = False) -> None:
        self._group = group
        self.folder = folder
        self.ways = None
        if group.rank == 0:
            super().__init__(folder, key, fresh=fresh)
        self.resumed = self._of_first(lambda: self.resumed)

    def _of_first(self, ask: Callable[[], T]) -> T:
        return self._group.from_first(ask() if self._group.rank == 0 else None)  # type: ignore[return-value]

    def has(self, stage: str) -> bool:
        """Whether process 0 has the stage."""
        return self._of_first(lambda: super(SharedStore, self).has(stage))

    def load_tensors(self, stage: str) -> dict[str, Tensor]:
        """What process 0 has."""
        return self._of_first(lambda: super(SharedStore, self).load_tensors(stage))

    def save_tensors(self, stage: str, tensors: Mapping[str, Tensor]) -> None:
        """Process 0 keeps it."""
        if self._group.rank == 0:
            super().save_tensors(stage, tensors)

    def has_chapter(self, id: str) -> bool:
        """Whether process 0 has the chapter."""
        return self._of_first(lambda: super(SharedStore, self).has_chapter(id))

    def load_chapter(self, id: str) -> tuple[Chapter, dict[str, Any]]:
        """What process 0 has."""
        return self._of_first(lambda: super(SharedStore, self).load_chapter(id))

    def save_chapter(self, chapter: Chapter, tables: Mapping[str, Any]) -> None:
        """Process 0 keeps it."""
        if self._group.rank == 0:
            super().save_chapter(chapter, tables)

    def load_ways(self) -> dict[str, Any] | None:
        """What process 0 has."""
        return self._of_first(lambda: super(SharedStore, self).load_ways())

    def drop_readings(self) -> None:
        """Process 0 drops them."""
        if self._group.rank == 0:
            super().drop_readings()

    def save_results(self, results: Results, page: str | None = None) -> None:
        """Process 0 writes them."""
        if self._group.rank == 0:
            super().save_results(results, page)

    def write_report(self, html: str) -> Path:
        """Process 0 writes it."""
        return super().write_report(html) if self._group.rank == 0 else self.folder / "report.html"
