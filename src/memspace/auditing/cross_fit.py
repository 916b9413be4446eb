"""Out-of-sample outputs of every training example: networks trained by the task's own recipe without its fold."""

from __future__ import annotations

import time
from collections.abc import Iterator

import torch
from torch import Tensor

from memspace.editing.edit import rest_of
from memspace.errors import SettingsError
from memspace.limits import WHOLE
from memspace.measures.values import HeldOut
from memspace.passes.outputs import outputs
from memspace.progress import Progress
from memspace.task.task import Task
from memspace.training.refit import refit_many

__all__ = ["cross_fit", "folds_of"]


def folds_of(folds: int, n: int) -> int:
    """Into how many parts n examples are divided: at most n; 0: no refits.

    Raises:
        SettingsError: one part leaves nothing to train on.
    """
    folds = WHOLE(folds, "folds")
    if folds == 1:
        raise SettingsError(
            "folds=1 leaves nothing to train on: a partition has at least two parts",
            where="settings",
            remedy="give a whole number of 2 or more, or 0 for no refits",
        )
    return min(folds, n) if n > 1 else 0


def cross_fit(task: Task, folds: int, repeats: int, seed: int, progress: Progress) -> HeldOut | None:
    """Outputs (n, C) of networks that did not see the example, averaged over ``repeats`` partitions.

    A network is trained on the other folds − 1 of ``folds`` parts: two parts cost one training in all, K parts K − 1.
    Where the task's training can be repeated by memspace all are trained at once, else one after another by ``refit``.

    Returns:
        None where nothing can train.
    """
    if task.training is None and task.refit is None:
        return None
    start = time.perf_counter()
    n = len(task.train)
    parts = [(r, p) for r in range(repeats) for p in _partition(n, folds, seed + 7 * r + 1)]
    total: Tensor | None = None
    for (repeat, out), f in zip(parts, _networks(task, n, [p for _, p in parts], seed, progress), strict=True):
        if total is None:
            total = f.new_zeros(repeats, n, *f.shape[1:], dtype=torch.float64)
        total[repeat, out] = f.double()
    assert total is not None
    return HeldOut(torch.arange(n), total.mean(0), folds, time.perf_counter() - start)


def _partition(n: int, folds: int, seed: int) -> list[Tensor]:
    order = torch.randperm(n, generator=torch.Generator().manual_seed(seed))
    return [order[k::folds].sort().values for k in range(folds)]


def _networks(task: Task, n: int, parts: list[Tensor], seed: int, progress: Progress) -> Iterator[Tensor]:
    """Outputs of each part's examples, from a network trained without them."""
    keeps = [rest_of(n, out) for out in parts]
    seeds = [seed + 1000 + k for k in range(len(parts))]
    if task.training is None:
        assert task.refit is not None
        for out, keep, s in progress.track(zip(parts, keeps, seeds, strict=True), "refitting", len(parts)):
            fresh = task.refit(keep, s)
            yield outputs(Task(fresh, task.train, task.likelihood), task.train, index=out)[0].to(task.device)
        return
    fewest = min(len(k) for k in keeps)  # networks at once have equally many examples: one may be left out
    index = torch.stack(
        [k[:fewest] if len(k) == fewest else _without_one(k, s) for k, s in zip(keeps, seeds, strict=True)]
    )
    for out, fresh in zip(parts, refit_many(task, index, seeds, progress), strict=True):
        yield outputs(Task(fresh, task.train, task.likelihood), task.train, index=out)[0]


def _without_one(keep: Tensor, seed: int) -> Tensor:
    spared = int(torch.randint(len(keep), (1,), generator=torch.Generator().manual_seed(seed)))
    return torch.cat([keep[:spared], keep[spared + 1 :]])
