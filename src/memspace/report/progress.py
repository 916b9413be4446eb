"""Progress in the terminal: a bar with time left per piece of work, or nothing."""

from __future__ import annotations

from types import TracebackType

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.progress import Progress as Bars

from memspace.progress import Progress

__all__ = ["TerminalProgress"]


class TerminalProgress(Progress):
    """Bars on standard error while the context is open; a finished piece of work leaves one line."""

    def __init__(self, console: Console) -> None:
        self._bars = Bars(
            TextColumn("{task.description:<42}"),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            console=console,
            transient=True,
        )

    def __enter__(self) -> TerminalProgress:
        self._bars.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bars.stop()

    def start(self, what: str, total: int) -> int:
        """A new bar."""
        return int(self._bars.add_task(what, total=total))

    def advance(self, handle: int, ticks: int = 1) -> None:
        """Move the bar."""
        self._bars.advance(TaskID(handle), ticks)

    def finish(self, handle: int) -> None:
        """Take the bar away."""
        self._bars.remove_task(TaskID(handle))
