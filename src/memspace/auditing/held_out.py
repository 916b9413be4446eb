"""Networks trained by the task's own recipe without some examples: the truth the damping is calibrated on."""

from __future__ import annotations

import time
from itertools import groupby

import torch
from torch import Tensor, nn

from memspace.auditing.plan import Plan
from memspace.editing.edit import rest_of
from memspace.measures.values import HeldOut
from memspace.passes.outputs import outputs
from memspace.progress import Progress
from memspace.task.task import Task
from memspace.training.refit import refit_many, refit_of

__all__ = ["refit_held_out"]


def refit_held_out(task: Task, plan: Plan, seed: int, progress: Progress) -> HeldOut | None:
    """Refit ``plan.folds`` networks, each without its own ``plan.held_out`` examples; None where nothing can refit."""
    if refit_of(task) is None or plan.folds == 0:
        return None
    start = time.perf_counter()
    generator = torch.Generator().manual_seed(seed + 1)
    order = torch.randperm(plan.n, generator=generator)
    parts = -(-plan.n // plan.held_out)  # of nearly equal size
    index = [order[k::parts].sort().values for k in range(plan.folds)]
    kept = [rest_of(plan.n, out) for out in index]
    seeds = [seed + 1000 + k for k in range(plan.folds)]
    fs = []
    for out, fresh in zip(index, _networks(task, kept, seeds, progress), strict=True):
        other = Task(model=fresh, train=task.train, likelihood=task.likelihood)
        f, _ = outputs(other, task.train, index=out)
        fs.append(f.to(task.device))
    return HeldOut(torch.cat(index), torch.cat(fs), plan.folds, time.perf_counter() - start)


def _networks(task: Task, kept: list[Tensor], seeds: list[int], progress: Progress) -> list[nn.Module]:
    """One network per fold; folds of one size are trained together."""
    sizes = [len(k) for k in kept]
    networks: list[nn.Module] = []
    for _, group in groupby(range(len(kept)), key=lambda k: sizes[k]):
        at = list(group)
        networks += refit_many(task, torch.stack([kept[k] for k in at]), [seeds[k] for k in at], progress)
    return networks
