"""A task of one file outside the package is listed, planned and built like a built-in one."""

from __future__ import annotations

from pathlib import Path

from tests.extension.outside import run_outside

TASK = '''
import torch
from torch import nn

from memspace.task.builtin import BuildOptions, Ingredients, builtin, trained_task
from memspace.task.recipe import Recipe


def network():
    return nn.Sequential(nn.Linear(3, 8), nn.Tanh(), nn.Linear(8, 2))


@builtin("halves")
def halves(options, progress):
    """Points on two sides of a plane."""
    x = torch.randn(80, 3, generator=torch.Generator().manual_seed(options.seed))
    y = (x[:, 0] > 0).long()
    recipe = Recipe(epochs=3, batch=20, rate=0.01, decay=1e-4)
    parts = Ingredients(network, recipe, x[:60], y[:60], (x[60:], y[60:]), 2, "points", "3-8-2")
    return trained_task("halves", parts, options, progress, class_names=("left", "right"))
'''


def test_it_is_listed(tmp_path: Path) -> None:
    done = run_outside(tmp_path, TASK, "-m memspace", "tasks")
    assert "halves          Points on two sides of a plane." in done.stdout, done.stderr
    assert "digits" in done.stdout


def test_an_audit_of_it_is_planned(tmp_path: Path) -> None:
    done = run_outside(tmp_path, TASK, "-m memspace", "audit", "halves", "--plan", "--label-noise", "0.1")
    assert done.returncode == 0, done.stderr
    assert "60 examples, 2 outputs, 50 parameters" in done.stdout


def test_two_tasks_of_one_name_are_refused(tmp_path: Path) -> None:
    done = run_outside(tmp_path, TASK.replace('"halves"', '"digits"'), "-m memspace", "tasks")
    assert "'digits' of a built-in task" in done.stderr
