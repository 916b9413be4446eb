"""The documentation's list of measures is what the code declares."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from memspace.auditing.chapters import CHAPTERS
from memspace.auditing.measure_list import as_markdown
from memspace.bibliography import works
from memspace.measures.declaration import MeasureDeclaration, declared_measures, provider_of
from memspace.measures.needs import needs_of
from memspace.measures.workspace import Measured

PAGE = Path(__file__).resolve().parents[2] / "docs" / "measures.md"
BUILT_IN = tuple(m for m in declared_measures() if m.function.__module__.startswith("memspace."))


def test_the_page_is_current() -> None:
    assert PAGE.read_text(encoding="utf-8") == as_markdown()


@pytest.mark.parametrize("declared", BUILT_IN, ids=lambda m: m.name)
def test_every_measure_says_what_it_means_and_cites_what_is_known(declared: MeasureDeclaration) -> None:
    assert re.fullmatch(r"[A-Z0-9].*\.", declared.meaning), declared.meaning
    assert not [key for key in re.findall(r"\b[a-z]+[0-9]{4}[a-z]?\b", declared.source) if key not in works()]


def test_what_chapters_need_is_provided_or_read() -> None:
    from memspace.auditing.reading import Reading

    read = {str(annotation) for annotation in Reading.__annotations__.values()}
    words = {word for annotation in read for word in re.findall(r"\w+", annotation)} | {"Budget", "StoredBits"}
    for chapter in CHAPTERS:
        for function in chapter.functions:
            for need in needs_of(function).values():
                known = need.kind is Measured or provider_of(need.kind) is not None
                assert known or need.kind.__name__ in words, (chapter.id, function, need)
