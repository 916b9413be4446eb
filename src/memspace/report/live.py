"""The numbers of a running training in the terminal: one line that is rewritten."""

from __future__ import annotations

from typing import Protocol

from rich.console import Console
from rich.live import Live

from memspace.report.terminal import Terminal

__all__ = ["LiveLine"]

_SHOWN = (
    ("loss", "loss"),
    ("length", "length"),
    ("constant_speed", "½L²"),
    ("action", "action"),
    ("excess", "excess"),
    ("effective_dimension", "dimension"),
    ("leave_one_out_gap", "gap"),
    ("expected_gap", "gap to expect"),
)


class _Told(Protocol):
    @property
    def step(self) -> int: ...

    def known(self) -> dict[str, float]: ...


class LiveLine:
    """A callable that shows numbers on standard error; without a terminal, one line per doubling of steps.

    Args:
        console: where it writes; None: standard error.
    """

    def __init__(self, console: Console | None = None) -> None:
        self._console = console or Terminal(stderr=True)
        self._live: Live | None = None
        self._next = 1

    def __call__(self, numbers: _Told) -> None:
        """Show them."""
        line = self.text(numbers)
        if self._console.is_terminal:
            if self._live is None:
                self._live = Live(console=self._console, auto_refresh=False)
                self._live.start()
            self._live.update(line, refresh=True)
        elif numbers.step >= self._next:
            self._next = 2 * max(1, numbers.step)
            self._console.print(line, soft_wrap=True, highlight=False)

    def close(self) -> None:
        """End the live line and leave its last state visible."""
        if self._live is not None:
            self._live.stop()
            self._live = None

    @staticmethod
    def text(numbers: _Told) -> str:
        """Format the known numbers in one line.

        Args:
            numbers: of one probe evaluation.

        Returns:
            the line.
        """
        known = numbers.known()
        return f"step {numbers.step:,}  " + "  ".join(f"{word} {known[k]:.4g}" for k, word in _SHOWN if k in known)
