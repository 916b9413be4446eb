"""The one way to the terminal: names and texts are shown as they are, never read as markup, codes or controls."""

from __future__ import annotations

import re
from typing import Any

from rich.console import Console
from rich.text import Text

__all__ = ["Terminal", "printable", "styled"]

# Codes that move the cursor, clear the screen or turn text around; line ends and tabs stay.
_CONTROLS = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")


def printable(text: str, *, one_line: bool = False) -> str:
    """The text with every control character replaced by a mark."""
    return _CONTROLS.sub("\ufffd", " ".join(text.split()) if one_line else text)


def styled(*parts: str | tuple[str, str]) -> Text:
    """Pieces of text one after another, each plain or as (text, style)."""
    return Text.assemble(*(printable(p) if isinstance(p, str) else (printable(p[0]), p[1]) for p in parts))


class Terminal(Console):
    """A console that takes strings literally; what is to be styled is handed over by :func:`styled`."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(**{"markup": False, "emoji": False} | settings)

    def render_str(self, text: str, **settings: Any) -> Text:
        """A string as text."""
        return super().render_str(printable(text), **settings)
