"""The one way to the terminal: names and texts are shown as they are, never read as markup, codes or controls."""

from __future__ import annotations

from typing import Any

from rich.console import Console
from rich.text import Text

from memspace.format import printable

__all__ = ["Terminal", "styled"]


def styled(*parts: str | tuple[str, str]) -> Text:
    """Pieces of text one after another, each plain or as (text, style)."""
    return Text.assemble(*(printable(p) if isinstance(p, str) else (printable(p[0]), p[1]) for p in parts))


class Terminal(Console):
    """A console that takes strings literally; what is to be styled is made by :func:`styled`."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(**{"markup": False, "emoji": False} | settings)

    def render_str(self, text: str, **settings: Any) -> Text:
        """A string as text."""
        return super().render_str(printable(text), **settings)
