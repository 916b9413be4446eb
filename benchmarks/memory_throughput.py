"""Many trainings at once against a loop of ordinary trainings, seconds per network and step.

The loop is ``torch`` as it comes, with as many threads as the machine has cores, one network after another. Since
threads wait for each other at every small operation, and longer on a busy machine, the same loop on one thread is timed
too. Nothing that computes the same numbers beats the arithmetic itself: the last row of each case is the ratio that
would be reached if a step cost no more than its matrix products at the speed of one large product on every core.
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.memory_workloads import WORKLOADS
from benchmarks.table import Row, at_least, mean_interval
from memspace.task.builtin.digits import RECIPE
from memspace.task.builtin.train import fit
from memspace.task.recipe import Recipe, Training
from memspace.task.task import Task
from memspace.training.many import train_many
from memspace.training.refit import whole

GOAL = 16.0
NETWORKS = 64


def rows(arguments: argparse.Namespace) -> list[Row]:
    cases: list[tuple[str, str, Callable[[Recipe], Recipe], int, float | None]] = [
        (
            "digits",
            "Adam, all 1,000 examples at every step",
            lambda r: replace(RECIPE, epochs=20, threads=None),
            64,
            GOAL,
        ),
        ("digits", "SGD, batches of 128", lambda r: replace(r, epochs=3, threads=None), 64, GOAL),
        ("fashion-mnist", "SGD, batches of 128", lambda r: replace(r, epochs=1), 8, None),
    ]
    made: list[Row] = []
    for workload, what, change, networks, goal in cases:
        if arguments.workload not in (None, workload):
            continue
        task = WORKLOADS[workload](arguments.data_root, 0, arguments.small)
        assert task.training is not None
        training = replace(task.training, recipe=change(task.training.recipe))
        made += _case(task, training, f"{workload}: {what}", networks, goal, len(arguments.seeds))
    return made


def _case(task: Task, training: Training, what: str, networks: int, goal: float | None, repeats: int) -> list[Row]:
    x, y = whole(task)
    cores = len(os.sched_getaffinity(0))
    before = torch.get_num_threads()
    plain, single, ours, shared = [], [], [], []

    def loop(threads: int, seed: int) -> float:
        torch.set_num_threads(threads)
        start = time.perf_counter()
        for k in range(2):
            fit(training.make, x, y, training.recipe, seed=2 * seed + k, record=False)
        return (time.perf_counter() - start) / 2

    def together(seed: int, one_seed: bool) -> float:
        torch.set_num_threads(cores)
        start = time.perf_counter()
        seeds = [seed] * networks if one_seed else range(seed * networks, (seed + 1) * networks)
        weights = torch.ones(networks, len(y)) if one_seed else None
        train_many(training, x, y, task.likelihood, seeds=seeds, weights=weights)
        return (time.perf_counter() - start) / networks

    try:
        loop(cores, 0)  # what torch sets up at its first steps
        for s in range(repeats):
            plain.append(loop(cores, s))
            single.append(loop(1, s))
            ours.append(together(s, False))
            shared.append(together(s, True))
    finally:
        torch.set_num_threads(before)
    steps = training.recipe.steps(len(y))
    detail = (
        f"ms per network and step: loop {_ms(plain, steps)} on {cores} threads, {_ms(single, steps)} on one; "
        f"{networks} together {_ms(ours, steps)}, with one seed and weights {_ms(shared, steps)}"
    )
    ratios = [a / b for a, b in zip(plain, ours, strict=True)]
    name = f"throughput, {networks} networks together / loop"
    first = f"{what}: {name}"
    made = [at_least("throughput", first, ratios, goal, detail) if goal else _row(first, ratios, detail)]
    best = [min(a, c) / b for a, c, b in zip(plain, single, ours, strict=True)]
    made.append(_row(f"{what}: {name} on its better number of threads", best))
    least = _operations(training, x, y) / _peak(cores)
    bound = [a / steps / least for a in plain]
    made.append(
        _row(f"{what}: that ratio, were there nothing but matrix products", bound, f"{1000 * least:.2f} ms a step")
    )
    return made


def _operations(training: Training, x: Tensor, y: Tensor) -> float:
    """Of the matrix products and convolutions of one network's step."""
    b = training.recipe.size(len(y))
    with FlopCounterMode(display=False) as counter:
        torch.nn.functional.cross_entropy(training.make()(x[:b]), y[:b]).backward()
    return float(counter.get_total_flops())


def _peak(cores: int) -> float:
    """Operations a second of 1,024² products, one on every core."""
    a = torch.randn(1024, 1024)

    def work(_: int) -> None:
        torch.set_num_threads(1)
        for _ in range(20):
            a @ a

    with ThreadPoolExecutor(cores) as pool:
        list(pool.map(work, range(cores)))
        start = time.perf_counter()
        list(pool.map(work, range(cores)))
        return cores * 20 * 2 * 1024**3 / (time.perf_counter() - start)


def _row(what: str, values: list[float], detail: str = "") -> Row:
    return Row("throughput", what, "", *mean_interval(values), None, detail)


def _ms(seconds: list[float], steps: int) -> str:
    return f"{1000 * sum(seconds) / len(seconds) / steps:.2f}"
