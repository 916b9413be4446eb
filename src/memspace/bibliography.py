"""The works memspace cites: one entry each in ``references.toml``, named by keys such as ``"mackay1992"``.

A *source* is one string: keys separated by commas, each with an optional place in brackets,
``"koh2017, liang2019 [eq. 8]"``. Text that holds no such list, as other packages may write it, is passed unchanged.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from types import MappingProxyType

from memspace.errors import SettingsError

__all__ = ["Work", "as_markdown", "cite", "keys_of", "reference", "references", "works"]

# A key and the place within the work: ``liang2019 [eq. 8]``.
_CITED = re.compile(r"([a-z]+\d{4}[a-z]?)(?: \[([^\[\]]+)\])?")
_BETWEEN = re.compile(r",\s+(?![^\[\]]*\])")  # a comma outside brackets
_LINKS = {"doi:": "https://doi.org/", "arXiv:": "https://arxiv.org/abs/"}


@dataclass(frozen=True)
class Work:
    """A published work.

    Args:
        key: its name in a source, for example ``"mackay1992"``.
        authors: each as ``"Surname, Initials"``; ``"others"`` at the end stands for those not named.
        year: year of publication.
        title: full title, in sentence case.
        venue: journal with volume and pages, proceedings, or publisher.
        identifier: ``"doi:..."``, ``"arXiv:..."``, or empty where there is none.
    """

    key: str
    authors: tuple[str, ...]
    year: int
    title: str
    venue: str
    identifier: str = ""

    @property
    def short(self) -> str:
        """Authors and year as in running text: ``"MacKay 1992"``, ``"Koh & Liang 2017"``, ``"Ren et al. 2018"``."""
        surnames = [author.partition(",")[0] for author in self.authors]
        names = " & ".join(surnames) if len(surnames) < 3 and "others" not in surnames else f"{surnames[0]} et al."
        letter = self.key[-1] if self.key[-1].isalpha() else ""
        return f"{names} {self.year}{letter}"

    @property
    def full(self) -> str:
        """The entry of a list of references, one line of plain text."""
        *first, last = self.authors
        joint = " " if last == "others" else " & " if len(first) == 1 else ", "
        authors = ", ".join(first) + (joint if first else "") + ("et al." if last == "others" else last)
        where = f"{self.venue}. {self.identifier}." if self.identifier else f"{self.venue}."
        title = self.title if self.title.endswith("?") else f"{self.title}."
        return f"{authors} ({self.year}). {title} {where}"

    @property
    def link(self) -> str:
        """Address of the work on the web, empty without an identifier."""
        for scheme, start in _LINKS.items():
            if self.identifier.startswith(scheme):
                return start + self.identifier.removeprefix(scheme)
        return ""


@cache
def works() -> Mapping[str, Work]:
    """Read the table of all works, once.

    Returns:
        Works by key, in alphabetical order.
    """
    table = tomllib.loads(files("memspace").joinpath("references.toml").read_text(encoding="utf-8"))
    return MappingProxyType(
        {key: Work(key, **entry | {"authors": tuple(entry["authors"])}) for key, entry in table.items()}
    )


def keys_of(source: str) -> tuple[str, ...]:
    """List the works a source names.

    Args:
        source: keys with optional places, or any other text.

    Returns:
        The keys in the order given; empty for text that is not a list of known keys.
    """
    return tuple(work.key for work, _ in _parts(source))


def cite(source: str) -> str:
    """Write a source as short citations: ``"liang2019 [eq. 8]"`` becomes ``"Liang et al. 2019, eq. 8"``.

    Args:
        source: keys with optional places, or any other text.

    Returns:
        Citations separated by semicolons; other text unchanged.
    """
    cited = [f"{work.short}, {place}" if place else work.short for work, place in _parts(source)]
    return "; ".join(cited) or source


def references(source: str) -> tuple[str, ...]:
    """Write out the works a source names.

    Args:
        source: keys with optional places, or any other text.

    Returns:
        Full references, one a work; empty for other text.
    """
    return tuple(work.full for work, _ in _parts(source))


def reference(key: str) -> str:
    """Write out one work.

    Args:
        key: its name, for example ``"mackay1992"``.

    Returns:
        Authors, year, title, venue and identifier in one line.

    Raises:
        SettingsError: no work has this key.
    """
    if key not in works():
        raise SettingsError(
            f"no work is named {key!r}"[:300],
            where="memspace.bibliography.reference",
            remedy="give one of the keys in memspace.bibliography.works()",
        )
    return works()[key].full


def _parts(source: str) -> list[tuple[Work, str]]:
    """Works with their places; nothing unless every part of the source is a known key."""
    matches = [_CITED.fullmatch(part) for part in _BETWEEN.split(source)]
    parts = [(works()[m[1]], m[2] or "") for m in matches if m is not None and m[1] in works()]
    return parts if len(parts) == len(matches) else []


def as_markdown() -> str:
    """Write the list of all works as a page, ``docs/references.md``.

    Returns:
        Markdown, one item a work with its key and, where it has one, its link.
    """
    lines = [
        "# References",
        "",
        "The works behind the measures, by the key that `source` of a measurement holds. Written by",
        "`python -m memspace.bibliography` from `src/memspace/references.toml`.",
        "",
    ]
    for key, work in works().items():
        link = f"[{work.identifier}]({work.link})" if work.link else ""
        text = work.full.replace(f"{work.identifier}.", f"{link}.") if link else work.full
        lines.append(f"* `{key}`: {text}")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    print(as_markdown(), end="")
