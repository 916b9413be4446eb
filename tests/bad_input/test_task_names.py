"""From a name on the command line to a task, or to a sentence that helps."""

from __future__ import annotations

import random
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from memspace.errors import CheckpointError, TaskError, WeightsMismatchError
from memspace.progress import Silent
from memspace.task.builtin import BuildOptions
from memspace.task.load import resolve
from memspace.task.task import Task

MODULE = """
import torch
from memspace.task.task import Task

def _task(width=4):
    return Task(torch.nn.Linear(width, 3), (torch.randn(9, width), torch.arange(9) % 3), name=f"width {width}")

ready = _task()
number = 7

class inside:
    make = staticmethod(_task)

def make(width=5):
    return _task(width)

def from_folder(root):
    return _task(len(list(root.iterdir())))

def wrong():
    return "no task"
"""


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder with a module of tasks, as the current one."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    (tmp_path / "own_tasks_for_tests.py").write_text(MODULE)
    (tmp_path / "broken_for_tests.py").write_text("def f(:\n    pass\n")
    (tmp_path / "failing_for_tests.py").write_text("raise ValueError('two\\nlines')\n")
    yield tmp_path
    for name in [n for n in sys.modules if n.endswith("_for_tests") or " of /" in n]:
        del sys.modules[name]


def _resolve(spec: str, **keywords: Any) -> Task:
    return resolve(spec, BuildOptions(data_root=Path()), Silent(), **keywords)


@pytest.mark.parametrize(
    ("typed", "near"),
    [("digit", "digits"), ("dgits", "digits"), ("fashion_mnist", "fashion-mnist"), ("shape", "shapes")],
)
def test_an_unknown_name_suggests_a_near_one(refused: Any, typed: str, near: str) -> None:
    with refused(TaskError, repr(typed), f"did you mean '{near}'?", "digits, fashion-mnist, shapes, text"):
        _resolve(typed)


def test_a_far_name_suggests_nothing(refused: Any) -> None:
    with refused(TaskError, "no built-in task 'zzz'") as message:
        _resolve("zzz")
    assert "did you mean" not in message[0]


def test_modules_and_attributes_are_found_in_the_current_folder(here: Path) -> None:
    assert _resolve("own_tasks_for_tests:ready").name == "width 4"
    assert _resolve("own_tasks_for_tests:make").name == "width 5"
    assert _resolve("own_tasks_for_tests:inside.make").name == "width 4"
    assert _resolve("own_tasks_for_tests:from_folder").name.startswith("width ")


def test_files_are_read_with_their_folder_on_the_path(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = here / "deep"
    folder.mkdir()
    (folder / "beside_for_tests.py").write_text("from own_tasks_for_tests import make\n")
    # Another module of the same name is imported already; it keeps its name.
    (folder / "random.py").write_text("from beside_for_tests import make\nclass Net: pass\nmade = make()\n")
    monkeypatch.syspath_prepend(str(here))
    assert _resolve("own_tasks_for_tests.py:make").name == "width 5"
    assert _resolve("deep/random.py:made").name == "width 5"
    assert _resolve(f"{folder / 'random.py'}:make").name == "width 5"
    assert random.random() < 1


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        ("nowhere/task.py:task", ("there is no file", "check that the file is there")),
        ("failing_for_tests.py:task", ("ValueError", "two lines", "runs on its own")),
        ("own_tasks_for_tests.py:reddy", ("no attribute 'reddy'",)),
        ("./own_tasks_for_tests:make", ("own_tasks_for_tests.py:attribute",)),
        ("no_such_module:task", ("no_such_module cannot be imported", "ModuleNotFoundError")),
        ("broken_for_tests:task", ("SyntaxError",)),
        ("failing_for_tests:task", ("ValueError", "two lines")),
        ("own_tasks_for_tests:reddy", ("no attribute 'reddy'", "did you mean 'ready'")),
        ("own_tasks_for_tests:inside.mke", ("no attribute 'inside.mke'", "did you mean 'make'")),
        ("own_tasks_for_tests:", ("no attribute ''",)),
        ("own_tasks_for_tests:number", ("gives a int",)),
        ("own_tasks_for_tests:wrong", ("gives a str",)),
        (":task", ("cannot be imported",)),
    ],
)
def test_what_is_no_task(refused: Any, here: Path, spec: str, words: tuple[str, ...]) -> None:
    with refused(TaskError, spec, *words):
        _resolve(spec)


def test_weights_are_loaded_into_the_task(refused: Any, here: Path) -> None:
    weight = torch.randn(3, 4)
    torch.save({"weight": weight, "bias": torch.zeros(3)}, here / "w.pt")
    task = _resolve("own_tasks_for_tests:ready", weights=here / "w.pt")
    assert torch.equal(task.model.weight, weight)
    with refused(CheckpointError, "nowhere.pt"):
        _resolve("own_tasks_for_tests:ready", weights=here / "nowhere.pt")
    with refused(WeightsMismatchError, "weight: (3, 4) for (3, 5)"):
        _resolve("own_tasks_for_tests:make", weights=here / "w.pt")
