"""How long the planned passes take, by timing one batch."""

from __future__ import annotations

import time

import torch

from memspace.audit.plan import Plan
from memspace.task.checks import untouched
from memspace.task.data import call_model, move
from memspace.task.task import Task

__all__ = ["estimated_seconds"]

EXAMPLES = 256


def estimated_seconds(task: Task, plan: Plan) -> float:
    """Seconds that the plan's passes take at the speed of one batch, read twice; refits and solves come on top.

    A backward pass is taken as long as that of one cotangent for every parameter.
    """
    count = min(EXAMPLES, plan.batch, plan.n)
    with untouched(task.model), torch.enable_grad():
        x = move(task.train.batch(range(count)).x, task.device, task.dtype)
        leaves = [p for p in task.model.parameters() if p.requires_grad]
        for _ in range(2):  # the first warms up
            begun = time.perf_counter()
            f = call_model(task.model, x)
            middle = time.perf_counter()
            torch.autograd.grad(f.sum(), leaves, allow_unused=True)
            if task.device.type == "cuda":
                torch.cuda.synchronize()
            ended = time.perf_counter()
    forward, backward = (middle - begun) / count, (ended - middle) / count
    return sum(s.examples * (s.forwards * forward + s.backwards * backward) for s in plan.stages)
