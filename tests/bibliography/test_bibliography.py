"""Every work named in the package and its guides has one entry, every entry is named, and sources read as citations."""

import ast
import re
from pathlib import Path

import pytest

from memspace import bibliography
from memspace.errors import SettingsError
from memspace.measurement import Measurement

ROOT = Path(__file__).parents[2]
SOURCES = sorted((ROOT / "src").rglob("*.py"))
GUIDES = sorted(p for p in (*(ROOT / "docs").rglob("*.md"), ROOT / "README.md") if p.name != "references.md")
# A name, perhaps a second, then a year: "Koh & Liang 2017", "Le Cun et al. 1990", "Rice (1980)".
IN_PROSE = re.compile(
    r"[A-Z][\w'’-]+(?:, [A-Z][\w'’-]+)*(?: (?:&|and)\s+[A-Z][\w'’-]+|\s+et al\.)?,?\s+\(?(?:19|20)\d\d[a-z]?\b"
)
KEY = re.compile(r"(?<!\\)\b[a-z]+(?:18|19|20)\d\d[a-z]?\b")


def _strings(path: Path) -> list[str]:
    return [
        n.value for n in ast.walk(ast.parse(path.read_text())) if isinstance(n, ast.Constant) and type(n.value) is str
    ]


STRINGS = {p: _strings(p) for p in SOURCES if p.name != "bibliography.py"}
TEXTS = [(p, s) for p, strings in STRINGS.items() for s in strings] + [(p, p.read_text()) for p in GUIDES]


def test_every_citation_in_prose_has_an_entry() -> None:
    known = {work.short for work in bibliography.works().values()}
    named = {(path.name, " ".join(c.split())) for path, text in TEXTS for c in IN_PROSE.findall(text)}
    assert not {(file, c) for file, c in named if not any(_names(c, short) for short in known)}


def _names(cited: str, short: str) -> bool:
    """Whether a citation is of this work; a word before it may be caught, or a particle of a name missed."""
    if short.endswith(f" {cited}"):
        return True
    before = cited.removesuffix(short)
    return before != cited and not re.search(r"&\s*$", before)


def test_every_key_in_the_package_has_an_entry() -> None:
    used = {key for strings in STRINGS.values() for s in strings for key in KEY.findall(s)}
    assert used
    assert used <= set(bibliography.works())


def test_every_entry_is_cited() -> None:
    text = " ".join(" ".join(s.split()) for _, s in TEXTS)
    idle = [
        key for key, work in bibliography.works().items() if key not in KEY.findall(text) and work.short not in text
    ]
    assert not idle


def test_keys_and_short_citations_name_one_work_each() -> None:
    works = bibliography.works()
    assert len({work.short for work in works.values()}) == len(works)
    assert list(works) == sorted(works)
    for key, work in works.items():
        assert re.fullmatch(rf"[a-z]+{work.year}[a-z]?", key), key


@pytest.mark.parametrize(
    ("source", "cited"),
    [
        ("mackay1992", "MacKay 1992"),
        ("koh2017, liang2019 [eq. 8]", "Koh & Liang 2017; Liang et al. 2019, eq. 8"),
        ("frankle2020 [above the worse end, not the mean], rao1945", None),
        ("grosse2023", "Grosse et al. 2023"),
        ("chen2018b", "Chen et al. 2018b"),
        ("", ""),
        ("our handbook, chapter 3", "our handbook, chapter 3"),
        ("mackay1992, our handbook", "mackay1992, our handbook"),
        ("nobody1999", "nobody1999"),
    ],
)
def test_sources_read_as_citations_and_other_text_is_unchanged(source: str, cited: str | None) -> None:
    if cited is None:
        cited = "Frankle et al. 2020, above the worse end, not the mean; Rao 1945"
    assert bibliography.cite(source) == cited
    assert len(bibliography.references(source)) == len(bibliography.keys_of(source))


def test_a_reference_is_one_line_with_everything() -> None:
    expected = "Koh, P. W. & Liang, P. (2017). Understanding black-box predictions via influence functions. ICML. "
    assert bibliography.reference("koh2017") == expected + "arXiv:1703.04730."
    assert bibliography.works()["koh2017"].link == "https://arxiv.org/abs/1703.04730"
    with pytest.raises(SettingsError, match="nobody1999"):
        bibliography.reference("nobody1999")


def test_json_has_the_key_and_the_citation() -> None:
    m = Measurement("a", 1.0, "nats", "exact", 3, None, "liang2019 [eq. 8]")
    written = m.to_dict()
    assert (written["source"], written["citation"]) == ("liang2019 [eq. 8]", "Liang et al. 2019, eq. 8")
    assert Measurement.from_dict(written) == m


def test_a_string_that_is_nothing_but_a_citation_is_a_key() -> None:
    alone = re.compile(rf"(?:{IN_PROSE.pattern})(?:[;,(].*)?")
    assert not [(path.name, s) for path, strings in STRINGS.items() for s in strings if alone.fullmatch(s)]


def test_the_page_of_references_is_current() -> None:
    assert (ROOT / "docs" / "references.md").read_text() == bibliography.as_markdown()
