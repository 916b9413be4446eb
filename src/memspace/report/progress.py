"""Progress for people: bars with time left in a terminal, a line now and then in a log file."""

from __future__ import annotations

import time
from collections.abc import Callable
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

from memspace.format import printable
from memspace.progress import Progress

__all__ = ["LineProgress", "TerminalProgress"]


class TerminalProgress(Progress):
    """Bars on standard error while the context is open; finished work leaves nothing behind.

    Args:
        console: where the bars are.
    """

    def __init__(self, console: Console) -> None:
        self._bars = Bars(
            TextColumn("{task.description:<42}", markup=False),
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

    def note(self, text: str) -> None:
        """Print it above the bars."""
        self._bars.console.print(printable(text))

    def start(self, what: str, total: int) -> int:
        """Add a bar."""
        return int(self._bars.add_task(printable(what), total=total))

    def advance(self, handle: int, ticks: int = 1) -> None:
        """Move the bar."""
        self._bars.advance(TaskID(handle), ticks)

    def finish(self, handle: int) -> None:
        """Remove the bar."""
        self._bars.remove_task(TaskID(handle))


class LineProgress(Progress):
    """Progress without a terminal: at most one line per interval, none for short work.

    Args:
        write: writes a line.
        every: seconds between lines, at least.
        clock: seconds.
    """

    def __init__(
        self, write: Callable[[str], None], every: float = 15.0, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._write, self._every, self._clock = write, every, clock
        self._last = clock()
        self._work: dict[int, tuple[str, int, int, float]] = {}  # handle: what, done, total, begun
        self._next = 0

    def note(self, text: str) -> None:
        """Write it."""
        self._write(text)

    def start(self, what: str, total: int) -> int:
        """Remember a piece of work."""
        self._next += 1
        self._work[self._next] = (what, 0, total, self._clock())
        return self._next

    def advance(self, handle: int, ticks: int = 1) -> None:
        """Say how far it is, if nothing was said for a while."""
        what, done, total, begun = self._work[handle]
        done += ticks
        self._work[handle] = (what, done, total, begun)
        now = self._clock()
        if now - self._last >= self._every and 0 < done <= total:
            self._last = now
            left = (now - begun) * (total - done) / done
            self._write(f"{what}: {done:,} of {total:,}, about {left:.0f} s left")

    def finish(self, handle: int) -> None:
        """Forget it."""
        self._work.pop(handle, None)
