"""The one way to the terminal: names and texts are shown as they are, never read as markup, codes or controls."""

from __future__ import annotations

from typing import Any

from rich.console import Console
from rich.text import Text

from memspace.format import printable

__all__ = ["Terminal", "styled"]


def styled(*parts: str | tuple[str, str]) -> Text:
    """Join pieces of text, each plain or as (text, style).

    Args:
        parts: in order; control characters are replaced by a mark.

    Returns:
        the text.
    """
    return Text.assemble(*(printable(p) if isinstance(p, str) else (printable(p[0]), p[1]) for p in parts))


class Terminal(Console):
    """A console that takes strings literally; :func:`styled` makes styled text.

    Args:
        settings: of ``rich.console.Console``.
    """

    def __init__(self, **settings: Any) -> None:
        super().__init__(**{"markup": False, "emoji": False} | settings)

    def render_str(self, text: str, **settings: Any) -> Text:
        """Render a string as literal text.

        Args:
            text: the string.
            settings: of ``rich.console.Console.render_str``.

        Returns:
            the text.
        """
        return super().render_str(printable(text), **settings)
