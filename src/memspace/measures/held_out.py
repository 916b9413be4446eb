"""Networks trained by the task's recipe without some examples: the truth the damping is calibrated on."""

from __future__ import annotations

import time
from itertools import groupby

import torch
from torch import Tensor, nn

from memspace.measures.values import HeldOut
from memspace.passes.outputs import outputs
from memspace.progress import Progress
from memspace.task.task import Task
from memspace.training.refit import refit_many, refit_of, rest_of

__all__ = ["refit_held_out"]


def refit_held_out(task: Task, folds: int, left_out: int, seed: int, progress: Progress) -> HeldOut | None:
    """Train some networks, each without examples of its own, and return their outputs on these.

    Args:
        task: which may know how to train.
        folds: networks; their examples are disjoint.
        left_out: examples that each is trained without, at most.
        seed: of the partition, and of the trainings.
        progress: where the trainings report.

    Returns:
        outputs of the examples left out; None where nothing can refit, or without folds.
    """
    if refit_of(task) is None or folds == 0:
        return None
    start, n = time.perf_counter(), len(task.train)
    order = torch.randperm(n, generator=torch.Generator().manual_seed(seed + 1))
    parts = -(-n // left_out)  # of nearly equal size
    index = [order[k::parts].sort().values for k in range(folds)]
    seeds = [seed + 1000 + k for k in range(folds)]
    tables = []
    networks = _networks(task, [rest_of(n, out) for out in index], seeds, progress)
    for out, network in zip(index, networks, strict=True):
        f, _ = outputs(Task(network, task.train, task.likelihood), task.train, index=out)
        tables.append(f.to(task.device))
    return HeldOut(torch.cat(index), torch.cat(tables), folds, time.perf_counter() - start)


def _networks(task: Task, rests: list[Tensor], seeds: list[int], progress: Progress) -> list[nn.Module]:
    """One network per fold; folds of one size are trained together."""
    sizes = [len(rest) for rest in rests]
    networks: list[nn.Module] = []
    for _, group in groupby(range(len(rests)), key=lambda k: sizes[k]):
        at = list(group)
        networks += refit_many(task, torch.stack([rests[k] for k in at]), [seeds[k] for k in at], progress)
    return networks
