"""A help page is there at once: nothing that computes is imported to show it."""

from __future__ import annotations

import subprocess
import sys

import pytest

HEAVY = ("torch", "numpy", "scipy", "sklearn", "pyarrow", "plotly", "pandas", "safetensors")
SHOW = """
import sys
from memspace.cli import app
for words in {lines}:
    try:
        app(args=words)
    except SystemExit as end:
        assert end.code == {code}, (words, end.code)
print("imported:", *(name for name in {heavy} if name in sys.modules))
"""
NAMES = """
from memspace.commands.declaration import declared
import memspace.cli
print(*(" ".join(filter(None, (c.group, c.name))) for c in declared()), sep="\\n")
"""


def _run(script: str) -> str:
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def _imported(lines: list[list[str]], code: int = 0) -> str:
    return _run(SHOW.format(lines=lines, code=code, heavy=HEAVY)).splitlines()[-1]


def test_help_of_everything_imports_nothing_heavy() -> None:
    commands = [name.split() for name in _run(NAMES).splitlines()]
    assert ["audit"] in commands
    assert ["study", "action"] in commands
    assert _imported([["--help"], ["--version"], ["study", "--help"]]) == "imported:"
    assert _imported([[*words, "--help"] for words in commands]) == "imported:"


@pytest.mark.parametrize(
    "words", [["audit", "digits", "--nothing"], ["nothing"], ["audit"], ["audit", "digits", "--seed", "-1"]]
)
def test_wrong_words_are_refused_before_anything_heavy_is_imported(words: list[str]) -> None:
    assert _imported([words], code=2) == "imported:"


def test_the_list_of_modules_can_tell() -> None:
    """What is asserted above fails where torch is imported: by a command that runs."""
    assert "torch" in _imported([["tasks"]])
