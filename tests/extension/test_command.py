"""A command from outside the package is one file: it is listed, runs, and refuses as the others do."""

from __future__ import annotations

from pathlib import Path

from tests.extension.outside import run_outside

OUTLINE = '''
from typing import Annotated

import typer

from memspace.commands import command
from memspace.commands.opened import opened
from memspace.commands.options import Output, TaskOptions, option
from memspace.commands.output import tell
from memspace.limits import COUNT


@command()
def outline(
    which: TaskOptions, output: Output, top: Annotated[int, COUNT, option("Layers listed.")] = 2
) -> None:
    """Print the layers of a network."""
    with opened(which, output) as (task, _):
        layers = [type(m).__name__ for m in list(task.model)[:top]]
    tell(output, {"layers": layers}, lambda console: console.print(" ".join(layers)))
'''
MINE = """
import torch, memspace

def task():
    x = torch.randn(20, 3)
    net = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.Tanh(), torch.nn.Linear(4, 2))
    return memspace.Task(model=net, train=(x, torch.arange(20) % 2))
"""
IMPORTED = """
import sys
from memspace.cli import app
try:
    app(args=["outline", "--help"])
except SystemExit:
    print("torch imported" if "torch" in sys.modules else "no torch")
"""


def _outline(folder: Path, *words: str) -> tuple[int, str, str]:
    (folder / "mine.py").write_text(MINE)
    done = run_outside(folder, OUTLINE, "-m memspace", *words)
    return done.returncode, done.stdout, done.stderr


def test_it_is_listed_and_has_a_help_of_its_own(tmp_path: Path) -> None:
    code, said, _ = _outline(tmp_path, "--help")
    assert code == 0
    assert "Print the layers of a network." in said
    assert "Audit a trained network" in said
    code, said, _ = _outline(tmp_path, "outline", "--help")
    assert code == 0
    assert "--top" in said
    assert "--data-root" in said


def test_it_runs_and_speaks_json(tmp_path: Path) -> None:
    assert _outline(tmp_path, "outline", "mine:task") == (0, "Linear Tanh\n", "")
    code, said, _ = _outline(tmp_path, "outline", "mine:task", "--top", "3", "--json")
    assert (code, said) == (0, '{"layers": ["Linear", "Tanh", "Linear"]}\n')


def test_its_bad_input_is_one_sentence_and_an_exit_code(tmp_path: Path) -> None:
    for words, expected, sentence in (
        (("mine:nothing",), 3, "no attribute"),
        (("mine:task", "--top", "0"), 2, "--top is out of range: 0"),
        (("mine:task", "--nothing"), 2, "no such option"),
    ):
        code, said, told = _outline(tmp_path, "outline", *words)
        assert (code, said) == (expected, "")
        assert told.startswith("memspace: ")
        assert told.count("\n") == 1
        assert sentence in told


def test_commands_of_the_package_do_not_wait_for_it(tmp_path: Path) -> None:
    done = run_outside(tmp_path, "print('imported')\n", "-m memspace", "audit", "--help")
    assert "imported" not in done.stdout
    assert "imported" in run_outside(tmp_path, "print('imported')\n", "-m memspace", "--help").stdout.splitlines()


def test_loading_it_imports_no_torch(tmp_path: Path) -> None:
    done = run_outside(tmp_path, OUTLINE, IMPORTED, cold=True)
    assert done.stdout.splitlines()[-1] == "no torch", done.stderr


def test_a_name_that_is_taken_is_refused_and_the_rest_works(tmp_path: Path) -> None:
    taken = OUTLINE.replace("def outline", "def audit")
    done = run_outside(tmp_path, taken, "-m memspace", "--help")
    assert done.returncode == 0
    assert "there is a command audit already" in done.stderr
    assert "Audit a trained network" in done.stdout
