"""Writing one example with the least disturbance, against plain descent on it, alone and among the training data.

An example is a test image with a label that is wrong for it. A baseline goes on until its loss is at or below the
target; the best of its rates is taken *by the truth*, for each figure on its own.
"""

from __future__ import annotations

import copy
import math
from argparse import Namespace
from collections import defaultdict
from collections.abc import Iterator, Mapping

import torch
from torch import Tensor, nn

from benchmarks.memory_workloads import WORKLOADS
from benchmarks.table import Row, mean_interval
from memspace.editing.effects import accuracy_of, divergence
from memspace.editing.write import WriteTarget, write
from memspace.task.task import Task

PART = "write"
EXAMPLES = 5  # per seed, each written into the network on its own
RATES = (0.0003, 0.001, 0.003, 0.01, 0.03)
MOST = 500  # steps of a baseline
BATCH = 127  # training examples beside the new one
TARGET = WriteTarget()


def rows(arguments: Namespace) -> list[Row]:
    out = []
    for name, make in WORKLOADS.items():
        if arguments.workload not in (None, name):
            continue
        figures: dict[str, list[float]] = defaultdict(list)
        for seed in arguments.seeds:
            for key, values in _seed(make(arguments.data_root, seed, arguments.small), arguments.small).items():
                kept = [v for v in values if not math.isnan(v)]
                figures[key].append(sum(kept) / len(kept) if kept else math.nan)
        count = f"means of {1 if arguments.small else EXAMPLES} examples per seed, {len(arguments.seeds)} seeds"
        out += [Row(PART, f"{name}: {key}", "", *mean_interval(v), None, count) for key, v in figures.items()]
    return out


def _seed(task: Task, small: bool) -> dict[str, list[float]]:
    assert task.test is not None
    found: dict[str, list[float]] = defaultdict(list)
    for k in range(1 if small else EXAMPLES):
        part = task.test.batch([k])
        wrong = (part.y + 1 + k) % len(task.class_names)
        edit = write(task, part.x, wrong, target=TARGET)
        found["stored"].append(edit.measurement("write.stored").value)
        found["linearisations"].append(edit.measurement("write.steps").value)
        ours = _disturbance(task, edit.state)
        for key, value in ours.items():
            found[f"{key}: least Fisher length"].append(value)
        for kind, rehearsed in (("descent on it alone", False), ("descent on it and training data", True)):
            reached = [_disturbance(task, s) for s in _descents(task, part.x, wrong, rehearsed)]
            for key in ours:
                best = (max if key.startswith("accuracy") else min)((r[key] for r in reached), default=math.nan)
                found[f"{key}: {kind}"].append(best)
    for key in ("KL on training data", "KL on unseen data"):
        mine, *others = (v for k, v in list(found.items()) if k.startswith(f"{key}: "))
        best = [min(each) for each in zip(*others, strict=True)]
        found[f"{key}, share of the best descent's"] = [a / b for a, b in zip(mine, best, strict=True)]
    return found


def _disturbance(task: Task, state: Mapping[str, Tensor]) -> dict[str, float]:
    assert task.test is not None
    right = [accuracy_of(task, task.test, None, s) for s in (None, state)]
    assert right[0] is not None
    assert right[1] is not None
    return {
        "KL on training data": float(divergence(task, task.train, None, None, state).mean()),
        "KL on unseen data": float(divergence(task, task.test, None, None, state).mean()),
        "accuracy on unseen data gained": float(right[1].mean() - right[0].mean()),
    }


def _descents(task: Task, x: Tensor, y: Tensor, rehearsed: bool) -> Iterator[dict[str, Tensor]]:
    """The weights at which each rate first has the loss at the target; none from a rate that does not get there."""
    whole = task.train.batch(range(len(task.train)))
    for rate in RATES:
        model = copy.deepcopy(task.model)
        optimiser = torch.optim.SGD(model.parameters(), rate, 0.9, weight_decay=task.decay or 0.0)
        generator = torch.Generator().manual_seed(0)
        for _ in range(MOST):
            loss = nn.functional.cross_entropy(model(x), y)
            if float(loss.detach()) <= TARGET.loss:
                yield model.state_dict()
                break
            if rehearsed:
                at = torch.randint(len(whole), (BATCH,), generator=generator)
                loss = loss + nn.functional.cross_entropy(model(whole.x[at]), whole.y[at])
            optimiser.zero_grad()
            torch.autograd.backward(loss)
            optimiser.step()
