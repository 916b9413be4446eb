"""What a command's help says is complete: no text is lost to markup, and defaults are named."""

from __future__ import annotations

import re

import pytest
import typer
from typer.testing import CliRunner

from memspace.cli import app, main
from memspace.commands.declaration import GROUPS

COMMANDS = sorted(typer.main.get_command(app).commands)  # type: ignore[attr-defined]


def _help(command: str) -> str:
    shown = CliRunner().invoke(app, [*command.split(), "--help"], env={"COLUMNS": "200"}).output
    return re.sub(r"[ \n│]+", " ", shown)


CLAIMS = [f"claims {name}" for name in ("list", "show", "register", "run", "pack", "verdict")]


@pytest.mark.parametrize("command", [*(c for c in COMMANDS if c not in GROUPS), "study action", *CLAIMS])
def test_no_sentence_of_a_help_has_lost_its_end(command: str) -> None:
    said = _help(command)
    assert "--help" in said
    assert not re.search(r" \.( |$)|; \.", said), said


def test_the_folder_of_a_run_is_named() -> None:
    assert "Run folder. [default: (runs/NAME)]" in _help("audit")
    assert "[default: (runs/NAME-compared)]" in _help("compare")
    assert "[default: (0.5 to 4)]" in _help("capacity")


def test_no_word_at_all_shows_the_commands(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr("sys.argv", ["memspace"])
    with pytest.raises(SystemExit) as left:
        main()
    said = capsys.readouterr()
    assert left.value.code == 2
    assert "Audit a trained network" in said.out + said.err
