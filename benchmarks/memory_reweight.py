"""Weights from fifty clean examples (Ren et al. 2018): do they find wrong labels, and does training with them help?"""

from __future__ import annotations

from argparse import Namespace
from collections import defaultdict
from dataclasses import replace

import torch

from benchmarks.memory_workloads import WORKLOADS
from benchmarks.table import Row, mean_interval
from memspace.editing.effects import accuracy_of
from memspace.editing.retrain import retrained
from memspace.editing.reweight import train_reweighted
from memspace.task.builtin.options import corrupt
from memspace.task.data import Data
from memspace.task.task import Task

PART = "reweight"
SHARES = (0.1, 0.4)  # of the training labels, wrong
CLEAN = 50


def rows(arguments: Namespace) -> list[Row]:
    out = []
    for name, make in WORKLOADS.items():
        if name != (arguments.workload or "digits"):
            continue
        for share in SHARES:
            figures: dict[str, list[float]] = defaultdict(list)
            for seed in arguments.seeds:
                task = _spoilt(make(arguments.data_root, seed, arguments.small), share, seed)
                for key, value in _one(task, seed).items():
                    figures[key].append(value)
            detail = f"{CLEAN} clean examples, {len(arguments.seeds)} seeds"
            for key, values in figures.items():
                out.append(Row(PART, f"{name}, {share:.0%} wrong: {key}", "", *mean_interval(values), None, detail))
    return out


def _spoilt(task: Task, share: float, seed: int) -> Task:
    """The same data with another share of wrong labels; its network is not trained again (nothing here reads it)."""
    assert task.true_labels is not None
    x = task.train.batch(range(len(task.train))).x
    return replace(task, train=Data((x, corrupt(task.true_labels, share, len(task.class_names), seed))), run=None)


def _one(task: Task, seed: int) -> dict[str, float]:
    assert task.test is not None
    assert task.true_labels is not None
    clean = task.test.batch(range(CLEAN))
    rest = torch.arange(CLEAN, len(task.test))
    wrong = task.train.labels() != task.true_labels
    weighted, weights = train_reweighted(task, (clean.x, clean.y), seed)
    states = {
        "plain": retrained(task, seed),
        "wrong labels left out": retrained(task, seed, (~wrong).to(torch.get_default_dtype())),
        "weights from clean examples at every step": weighted,
    }
    found = {}
    for key, state in states.items():
        right = accuracy_of(task, task.test, rest, state)
        assert right is not None
        found[f"unseen accuracy, {key}"] = float(right.mean())
    found["mean weight of wrong labels"] = float(weights[wrong].mean())
    found["mean weight of right labels"] = float(weights[~wrong].mean())
    return found
