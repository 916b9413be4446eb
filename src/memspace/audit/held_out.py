"""Networks trained by the task's own recipe without some examples: the truth the damping is calibrated on."""

from __future__ import annotations

import time

import torch

from memspace.audit.plan import Plan
from memspace.audit.reading import HeldOut
from memspace.passes.outputs import outputs
from memspace.progress import Progress
from memspace.task.task import Task

__all__ = ["refit_held_out"]


def refit_held_out(task: Task, plan: Plan, seed: int, progress: Progress) -> HeldOut | None:
    """Refit ``plan.folds`` networks, each without its own ``plan.held_out`` examples; None where nothing can refit."""
    if task.refit is None or plan.folds == 0:
        return None
    start = time.perf_counter()
    generator = torch.Generator().manual_seed(seed + 1)
    order = torch.randperm(plan.n, generator=generator)
    fs, index = [], []
    for k in progress.track(range(plan.folds), "refitting without held-out examples", plan.folds):
        out = order[k * plan.held_out : (k + 1) * plan.held_out].sort().values
        keep = torch.ones(plan.n, dtype=torch.bool)
        keep[out] = False
        fresh = task.refit(keep.nonzero().flatten(), seed + 1000 + k)
        other = Task(model=fresh, train=task.train, likelihood=task.likelihood)
        f, _ = outputs(other, task.train, index=out)
        fs.append(f.to(task.device))
        index.append(out)
    return HeldOut(torch.cat(index), torch.cat(fs), plan.folds, time.perf_counter() - start)
