"""What a linter cannot say of docstrings: which need which sections, how they begin, and which words they avoid.

Files are held to this as soon as ``pyproject.toml`` exempts them no longer.
"""

import ast
import re
from pathlib import Path

import pytest

from tests.style.docstrings import PACKAGE, Documented, held, overrides, public

VERBS = frozenset((Path(__file__).parent / "verbs.txt").read_text().split())
# Words that readers stumbled over, and the plain ones.
PLAIN = {
    r"roads?": "backend, path",
    r"purses?": "budget",
    r"anew": "again",
    r"beside": "next to",
    r"hand(?:s|ed|ing)? (?:it |them )?over": "pass",
    r"teams?": "process group",
    r"out of all bounds": "diverges",
}
EMPTY = frozenset({"found", "kept", "own", "each", "held", "told", "said", "given"})

FILES = [pytest.param(path, id=path.relative_to(PACKAGE).as_posix()) for path in held()]


def _functions(path: Path) -> list[Documented]:
    return [d for d in public(path) if not isinstance(d.node, ast.ClassDef) and not d.is_property]


@pytest.mark.parametrize("path", FILES)
def test_every_parameter_is_described_on_its_own(path: Path) -> None:
    items = [d for d in public(path) if not (d.is_property or d.declared or overrides(d))]
    wrong = {d.name: (d.entries, d.parameters) for d in items if d.entries != d.parameters}
    assert not wrong, "described, and to describe"


@pytest.mark.parametrize("path", FILES)
def test_what_is_returned_is_described(path: Path) -> None:
    items = [d for d in _functions(path) if d.returns and not (d.declared or overrides(d))]
    assert not [d.name for d in items if not {"Returns", "Yields"} & d.sections.keys()]


@pytest.mark.parametrize("path", FILES)
def test_what_is_raised_is_described(path: Path) -> None:
    described = [d for d in _functions(path) if "command" not in d.decorators]  # a command's failures are sentences
    named = {d.name: {e for e in d.raised if e not in d.sections.get("Raises", "")} for d in described}
    assert not {name: missing for name, missing in named.items() if missing}


@pytest.mark.parametrize("path", FILES)
def test_functions_begin_with_a_verb(path: Path) -> None:
    described = [d for d in _functions(path) if not (d.is_measure or overrides(d))]
    first = {d.name: re.split(r"[\s,.:]", d.doc.strip() + " ")[0] for d in described}
    assert not {name: word for name, word in first.items() if word not in VERBS}


@pytest.mark.parametrize("path", FILES)
def test_words_are_plain(path: Path) -> None:
    text = path.read_text()
    assert not {word: plain for word, plain in PLAIN.items() if re.search(rf"\b{word}\b", text)}


@pytest.mark.parametrize("path", FILES)
def test_locals_say_what_they_hold(path: Path) -> None:
    functions = [n for n in ast.walk(ast.parse(path.read_text())) if isinstance(n, ast.FunctionDef)]
    names = {n for f in functions for n in ast.walk(f) if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store)}
    assert not [f"{n.id} in line {n.lineno}" for n in names if n.id in EMPTY]


def test_some_files_are_held() -> None:
    assert FILES


def test_verbs_are_sorted() -> None:
    listed = (Path(__file__).parent / "verbs.txt").read_text().split()
    assert listed == sorted(set(listed))
