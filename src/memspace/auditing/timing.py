"""The duration of a planned audit: passes by the time of a few batches, arithmetic by that of a matrix product."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import torch

from memspace.auditing.plan import Plan
from memspace.measures.cost import Stage
from memspace.passes.engine import PassOptions, run_pass
from memspace.passes.outputs import outputs
from memspace.passes.space import ParameterSpace
from memspace.passes.statistics import DiagonalFisher
from memspace.task.checks import untouched
from memspace.task.fixed import has_fixed_parts
from memspace.task.task import Task

__all__ = ["estimated_seconds"]

EXAMPLES, FEW = 256, 2  # at a time: the most that are timed, and so few that what a call costs by itself shows
AT_ONCE = 512  # examples that outputs are read of at a time
SIDE = 512  # of the matrix product
BEST = 1.3  # what passes take over that: the fastest batches have warm caches (measured on twenty tasks)
REPEATS, LONG = 20, 0.3  # times at most, and seconds of them; the fastest counts: on a shared machine others waited


@dataclass(frozen=True)
class _Speed:
    """Seconds of a call by itself, and of an example in it."""

    call: float
    example: float

    def of(self, stage: Stage, times: float, batch: int) -> float:
        """Of so many runs over a stage's examples."""
        return times * (self.call * -(-stage.examples // batch) + self.example * stage.examples)


def estimated_seconds(task: Task, space: ParameterSpace, plan: Plan) -> float:
    """Estimate the time that the plan takes, within a factor of about two, without refits.

    Forwards are timed with other weights in place and the loss computed, as most of them run; backwards by a pass that
    squares per-example gradients of one sampled label.

    Args:
        task: the network and its data.
        space: the parameters, laid out in blocks.
        plan: the stages.

    Returns:
        seconds.
    """
    count = min(EXAMPLES, plan.batch, plan.n)
    law, theta = task.likelihood, space.flat(task.model)
    statistics = [DiagonalFisher(space.blocks, "mc")]

    def forward(examples: int) -> None:
        f, y = outputs(task, task.train, state=space.unpack(theta), index=torch.arange(examples))
        law.kl(f.double(), f.double())
        law.nll(f.double(), y)

    def backward(examples: int) -> None:
        run_pass(task, space, statistics, PassOptions(index=torch.arange(examples), batch=examples))

    with untouched(task.model):
        seconds = 0.0
        if has_fixed_parts(task.model):  # which run once for every example, in whatever stage comes first
            begun = time.perf_counter()
            forward(count)
            examples = plan.n + (0 if task.test is None else len(task.test))
            seconds = (time.perf_counter() - begun) * examples / count
        there = _speed(task, forward, count)
        whole = _speed(task, backward, count)
        back = _Speed(max(0.0, whole.call - there.call), max(there.example, whole.example - there.example))
        rate = _rate(task)
    for s in plan.stages:
        passes = there.of(s, s.forwards, AT_ONCE if not s.backwards else plan.batch)
        passes += back.of(s, s.backwards, plan.batch)
        seconds += BEST * passes + s.work / rate + s.seconds
    return seconds


def _speed(task: Task, run: Callable[[int], None], count: int) -> _Speed:
    few = min(FEW, count)
    least, most = _timed(task, run, few), _timed(task, run, count)
    example = max(0.0, most - least) / (count - few) if count > few else least / few
    return _Speed(max(0.0, least - few * example), example)


def _timed(task: Task, run: Callable[[int], None], count: int) -> float:
    """The fastest of a few, the first being left out: it warms up, and lets the batch be proven. Long ones run once."""
    times: list[float] = []
    begun = time.perf_counter()
    run(count)
    if (first := time.perf_counter() - begun) > 10 * LONG:
        return first
    while len(times) < REPEATS and sum(times) < LONG:
        begun = time.perf_counter()
        run(count)
        if task.device.type == "cuda":
            torch.cuda.synchronize()
        times.append(time.perf_counter() - begun)
    return min(times)


def _rate(task: Task) -> float:
    """Operations a second in float64."""
    a = torch.randn(SIDE, SIDE, dtype=torch.float64, device=task.device if task.device.type == "cuda" else "cpu")

    def product(_: int) -> None:
        torch.matmul(a, a)

    return 2 * SIDE**3 / _timed(task, product, SIDE)
