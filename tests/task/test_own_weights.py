"""Weights from a file: what they replace, what they drop, and what they spare."""

from __future__ import annotations

import sys
import types
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import memspace.task.builtin.train as trainer
from memspace.errors import CheckpointError, DataError, TaskError
from memspace.progress import Silent
from memspace.task.builtin import BuildOptions, build
from memspace.task.checkpoint import load_weights
from memspace.task.load import resolve
from memspace.task.task import Task


@pytest.fixture
def options(tmp_path: Path) -> BuildOptions:
    return BuildOptions(cache=tmp_path / "cache", train_size=100, test_size=20, epochs=5)


@pytest.fixture
def own(monkeypatch: pytest.MonkeyPatch) -> types.ModuleType:
    """An importable module to hang task functions on."""
    module = types.ModuleType("own_functions_for_tests")
    monkeypatch.setitem(sys.modules, module.__name__, module)
    return module


def _task(*_: Any) -> Task:
    return Task(nn.Linear(4, 3), (torch.randn(9, 4), torch.arange(9) % 3))


def _refuse(*_: Any, **__: Any) -> Any:
    raise AssertionError("trained a network that nobody asked for")


def test_foreign_weights_leave_out_the_run_of_another_network(options: BuildOptions, tmp_path: Path) -> None:
    built = build("digits", options, Silent())
    assert built.run is not None
    torch.save({k: v + 1 for k, v in built.model.state_dict().items()}, tmp_path / "other.pt")
    task = resolve("digits", options, Silent(), tmp_path / "other.pt")
    assert task.run is None
    assert task.description["weights"] == "other.pt"
    assert "training" not in task.description


def test_the_task_s_own_weights_keep_its_run(options: BuildOptions, tmp_path: Path) -> None:
    built = build("digits", options, Silent())
    torch.save(built.model.state_dict(), tmp_path / "own.pt")
    task = resolve("digits", options, Silent(), tmp_path / "own.pt")
    assert task.run is not None
    assert task.description["training"] == built.description["training"]


def test_nothing_is_trained_where_weights_are_given(
    options: BuildOptions, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trainer, "fit", _refuse)
    untrained = build("digits", BuildOptions(**{**vars(options), "train_network": False}), Silent())
    assert untrained.run is None
    state = {k: torch.full_like(v, 0.5) for k, v in untrained.model.state_dict().items()}
    torch.save(state, tmp_path / "half.pt")
    task = resolve("digits", options, Silent(), tmp_path / "half.pt")
    assert all(bool((p == 0.5).all()) for p in task.model.parameters())
    assert not (tmp_path / "cache").exists()


def test_a_failing_task_function_is_one_sentence_with_its_line(options: BuildOptions, own: types.ModuleType) -> None:
    def broken() -> Task:
        raise KeyError("data_dir")

    own.broken = broken
    with pytest.raises(TaskError, match=r"raised KeyError: 'data_dir' \(test_own_weights.py, line \d+\)"):
        resolve("own_functions_for_tests:broken", options, Silent())


def test_a_task_function_that_needs_a_folder_says_which_option_gives_it(
    options: BuildOptions, own: types.ModuleType
) -> None:
    own.reads = lambda root: _task(root / "train.csv")
    with pytest.raises(TaskError, match="--data-root"):
        resolve("own_functions_for_tests:reads", options, Silent())


def test_a_task_function_s_own_advice_is_passed_on(options: BuildOptions, own: types.ModuleType) -> None:
    def missing() -> Task:
        raise DataError("no table", where="x.csv", remedy="fetch it")

    own.missing = missing
    with pytest.raises(DataError, match=r"no table \(x.csv\); fetch it"):
        resolve("own_functions_for_tests:missing", options, Silent())


def test_a_task_function_of_any_arguments_is_called_without(options: BuildOptions, own: types.ModuleType) -> None:
    def loose(*args: Any, flag: bool = True, **more: Any) -> Task:
        assert not args
        assert not more
        return _task()

    own.loose = loose
    assert resolve("own_functions_for_tests:loose", options, Silent()).name == "task"


def test_a_checkpoint_whose_keys_are_numbers_is_no_state_dict(tmp_path: Path) -> None:
    torch.save({0: torch.zeros(3)}, tmp_path / "numbered.pt")
    with pytest.raises(CheckpointError, match="no state dict"):
        load_weights(nn.Linear(4, 3), tmp_path / "numbered.pt")
