"""Pages of documentation are made of short sentences and plain words, and their links lead somewhere."""

import re
from pathlib import Path

import pytest

from tests.style.prose import sentences, words

ROOT = Path(__file__).parents[2]
LONGEST = 30  # words of a sentence
GENERATED = frozenset({"references.md", "measures.md"})  # written from tables and declarations
PAGES = [
    ROOT / "README.md",
    ROOT / "ARCHITECTURE.md",
    ROOT / "CHANGELOG.md",
    *sorted(page for page in (ROOT / "docs").rglob("*.md") if page.name not in GENERATED),
]
PLAIN = {
    r"roads?": "backend, path",
    r"purses?": "budget",
    r"anew": "again",
    r"beside": "next to",
    r"hand(?:s|ed|ing)? (?:it |them )?over": "pass",
    r"teams?": "process group",
    r"a look at the probe": "probe evaluation",
}


def _id(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


def _long(text: str) -> list[str]:
    return [sentence for sentence in sentences(text) if words(sentence) > LONGEST]


@pytest.mark.parametrize("page", PAGES, ids=_id)
def test_sentences_are_short(page: Path) -> None:
    assert not _long(page.read_text(encoding="utf-8"))


@pytest.mark.parametrize("page", PAGES, ids=_id)
def test_words_are_plain(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    assert not {word: plain for word, plain in PLAIN.items() if re.search(rf"\b{word}\b", text)}


@pytest.mark.parametrize("page", PAGES, ids=_id)
def test_links_lead_to_files_and_headings(page: Path) -> None:
    targets = re.findall(r"\]\((?!https?:)([^)\s#]*)(?:#([^)\s]*))?\)", page.read_text(encoding="utf-8"))
    for name, anchor in targets:
        target = page.parent / name if name else page
        assert target.is_file(), name
        if anchor:
            headings = re.findall(r"^#+ (.*)$", target.read_text(encoding="utf-8"), re.MULTILINE)
            assert anchor in {_anchor(heading) for heading in headings}, f"{name}#{anchor}"


def _anchor(heading: str) -> str:
    """The anchor a heading has on its page."""
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        pytest.param("One is here. Two is there.", 2, id="full stops divide"),
        pytest.param("Koh et al. 2017 say so, e.g. here.", 1, id="abbreviations do not"),
        pytest.param("It is 0.5 at 1.2.", 1, id="numbers do not"),
        pytest.param("Do it. `x` is made.", 2, id="code begins a sentence"),
        pytest.param("```\nNo. Not this.\n```\n| a. B | c |\n\n    also. Not\n\nThis one.", 1, id="code and tables"),
        pytest.param("- one\n- two\n  goes on\n", 2, id="items of a list"),
    ],
)
def test_text_is_divided_into_sentences(text: str, expected: int) -> None:
    assert len(sentences(text)) == expected


def test_words_are_counted() -> None:
    assert words("A network – of `two` layers (dense).") == 6
