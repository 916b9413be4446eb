"""What watching a training costs at the default rate: whole trainings with and without, in turns, on one machine.

On one thread, and in processor time: by the clock on the wall the same training takes 5% more or less from one turn to
the next on a shared machine, which is what is asked about. The clock's ratio stands beside it.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

import memspace
from benchmarks.memory_workloads import _cnn, _mlp
from benchmarks.memory_workloads import digits as digits_task
from benchmarks.memory_workloads import fashion as fashion_task
from benchmarks.table import Row
from memspace.recorder.recorder import Recorder
from memspace.task.recording import load_recording
from memspace.task.task import Task

PART = "watch"
GOAL = 0.05
REPEATS = 15  # seven ratios spread by 10% once: their median then says nothing about 5%
INNER = 3  # the fourth least and the fourth greatest of fifteen bound the median at 96%
STEPS = {"digits": 8000, "fashion-mnist": 800}
BATCH, RATE = 128, 0.05


@dataclass(frozen=True)
class Turn:
    """One training: processor seconds in all, with set-up and close where it was watched; and what came of it."""

    seconds: float
    wall: float
    weights: list[Tensor]
    run: Recorder | None = None
    looks: int = 0
    kept: int = 0


def rows(arguments: argparse.Namespace) -> list[Row]:
    workloads = {"digits": (digits_task, _mlp), "fashion-mnist": (fashion_task, _cnn)}
    out: list[Row] = []
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        for name, (make, network) in workloads.items():
            if arguments.workload in (None, name):
                steps = 60 if arguments.small else STEPS[name]
                out += _rows(name, make(arguments.data_root, 0, arguments.small), network, steps)
    finally:
        torch.set_num_threads(threads)
    return out


def _rows(name: str, task: Task, network: Callable[[], nn.Module], steps: int) -> list[Row]:
    part = task.train.batch(range(len(task.train)))
    data = (part.x, part.y)
    for watched in (False, True):
        _training(network, data, min(steps, 100), watched=watched)  # warms up
    pairs: list[tuple[Turn, Turn]] = []
    for k in range(REPEATS):  # each goes first in every other pair
        turns = {w: _training(network, data, steps, watched=w) for w in ((False, True) if k % 2 else (True, False))}
        pairs.append((turns[False], turns[True]))
    shares = [b.seconds / a.seconds - 1 for a, b in pairs]
    plain, followed = (statistics.median(p[k].seconds for p in pairs) for k in (0, 1))
    middle = statistics.median(shares)
    clock = statistics.median(b.wall / a.wall - 1 for a, b in pairs)
    same = all(torch.equal(x, y) for a, b in pairs for x, y in zip(a.weights, b.weights, strict=True))
    last = pairs[-1][1]
    assert last.run is not None
    own = statistics.median(b.run.costs["share"] for _, b in pairs if b.run is not None)
    detail = f"{steps:,} steps, {plain:.2f} s without and {followed:.2f} s with (medians of {REPEATS}); "
    detail += f"on the wall {clock:+.1%}; by the recorder's own clock {own:.1%}; "
    detail += f"{last.looks} looks, {last.kept} checkpoints"
    return [
        Row(
            PART,
            f"{name}: time added by watching",
            f"≤ {GOAL:g}",
            middle,
            sorted(shares)[INNER],
            sorted(shares)[-1 - INNER],
            middle <= GOAL,
            detail,
        ),
        Row(PART, f"{name}: trainings whose weights differ", "≤ 0", float(not same), None, None, same, "bit for bit"),
    ]


def _training(network: Callable[[], nn.Module], data: tuple[Tensor, Tensor], steps: int, watched: bool) -> Turn:
    x, y = data
    torch.manual_seed(0)
    model = network()
    optimizer = torch.optim.SGD(model.parameters(), RATE, momentum=0.9)
    with tempfile.TemporaryDirectory() as folder:
        began, wall = time.process_time(), time.perf_counter()
        run = memspace.watch(model, data, optimizer, out=Path(folder)) if watched else None
        for _ in range(steps):
            index = torch.randint(len(y), (BATCH,))
            optimizer.zero_grad()
            torch.autograd.backward(nn.functional.cross_entropy(model(x[index]), y[index]))
            optimizer.step()
        if run is not None:
            run.close()
        seconds, wall = time.process_time() - began, time.perf_counter() - wall
        weights = [p.detach().clone() for p in model.parameters()]
        if run is None:
            return Turn(seconds, wall, weights)
        found = load_recording(folder)
        return Turn(seconds, wall, weights, run, len(found.looks["step"]), len(found.run.step))
