"""Progress of long work, reported to a terminal, a notebook, or nobody."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from typing import TypeVar

__all__ = ["Progress", "Silent"]

T = TypeVar("T")


class Progress(ABC):
    """A listener. Work announces a step with its number of ticks, advances it and closes it."""

    @abstractmethod
    def start(self, what: str, total: int) -> int:
        """Announce a piece of work.

        Args:
            what: it is, in words.
            total: ticks of it.

        Returns:
            Its handle.
        """

    @abstractmethod
    def advance(self, handle: int, ticks: int = 1) -> None:
        """Report ticks done.

        Args:
            handle: of the piece of work.
            ticks: number of them.
        """

    @abstractmethod
    def finish(self, handle: int) -> None:
        """Close the piece of work.

        Args:
            handle: of the piece of work.
        """

    def note(self, text: str) -> None:  # noqa: B027 - a listener need not hear it
        """Tell one sentence about the work; nobody hears it where a listener does not say otherwise.

        Args:
            text: the sentence.
        """

    def track(self, items: Iterable[T], what: str, total: int) -> Iterator[T]:
        """Iterate over items, advancing one tick each; closes itself also after an exception.

        Args:
            items: to iterate over.
            what: the work is, in words.
            total: number of items.

        Yields:
            The items.
        """
        handle = self.start(what, total)
        try:
            for item in items:
                yield item
                self.advance(handle)
        finally:
            self.finish(handle)


class Silent(Progress):
    """Tells nobody."""

    def start(self, what: str, total: int) -> int:
        """Nothing to announce to."""
        return 0

    def advance(self, handle: int, ticks: int = 1) -> None:
        """Nothing to report to."""

    def finish(self, handle: int) -> None:
        """Nothing to close."""
