"""A budget that is too small, and the words that say what would fit."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import nn

from memspace.auditing.plan import AuditSettings, Plan, make_plan
from memspace.commands.options import parse_memory
from memspace.errors import MemoryBudgetError
from memspace.metric.fisher import build
from memspace.passes.batching import examples_at_once
from memspace.passes.space import ParameterSpace
from memspace.task.data import Data
from memspace.task.likelihood import Categorical
from memspace.task.task import Task


def _task(width: int = 16, n: int = 40) -> Task:
    model = nn.Sequential(nn.Linear(4, width), nn.ReLU(), nn.Linear(width, 3))
    return Task(model, Data((torch.randn(n, 4), torch.arange(n) % 3)))


def _plan(task: Task, settings: AuditSettings) -> Plan:
    return make_plan(task, ParameterSpace(task.model), settings)


def _advised(message: str) -> int:
    found = re.search(r"raise --memory to ([\d.]+[KMG]iB)", message)
    assert found is not None, message
    return parse_memory(found.group(1))


def test_less_than_one_example_fits(refused: Any) -> None:
    task = _task(width=2_000_000)
    with refused(MemoryBudgetError, "one example's signals", "memory budget", "--memory") as message:
        _plan(task, AuditSettings(memory=2**20))
    plan = _plan(task, AuditSettings(memory=_advised(message[0])))
    assert plan.batch >= 1


@pytest.mark.parametrize("representation", ["auto", "dual", "ekfac"])
def test_a_budget_of_a_few_bytes(refused: Any, representation: str) -> None:
    with refused(MemoryBudgetError, "memory budget", "raise --memory"):
        _plan(_task(), AuditSettings(memory=64, representation=representation))


def test_a_dual_that_does_not_fit_names_what_does(refused: Any) -> None:
    task = _task(width=512, n=6000)
    asked = AuditSettings(memory=2**26, representation="dual")
    with refused(MemoryBudgetError, "18,000 rows", "64MiB", "ekfac") as message:
        _plan(task, asked)
    advised = _advised(message[0])
    assert _plan(task, replace(asked, memory=advised)).representation == "dual"
    assert _plan(task, replace(asked, representation="ekfac")).representation == "ekfac"
    assert _plan(task, replace(asked, representation="auto")).representation == "ekfac"


def test_a_dual_of_sequences_is_refused(refused: Any) -> None:
    model = nn.Sequential(nn.Embedding(5, 4), nn.Linear(4, 5))
    x = torch.randint(0, 5, (12, 6))
    with refused(MemoryBudgetError, "sequence", "ekfac"):
        _plan(Task(model, Data((x, x)), Categorical()), AuditSettings(representation="dual"))


def test_the_batch_shrinks_with_the_budget() -> None:
    task = _task(width=4096, n=300)
    batches = [_plan(task, AuditSettings(memory=m)).batch for m in (2**21, 2**23, 2**25, 2**32)]
    assert batches == sorted(batches)
    assert batches[0] < batches[-1] == len(task.train) < examples_at_once(task)


@pytest.mark.parametrize("representation", ["dense", "dual"])
def test_a_metric_that_does_not_fit_names_another(refused: Any, representation: str) -> None:
    task = _task()
    with refused(MemoryBudgetError, "memory budget", "ekfac"):
        build(task, ParameterSpace(task.model), representation, memory=1000)
