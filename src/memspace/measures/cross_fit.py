"""Out-of-sample outputs of every training example: networks trained by the task's recipe without its fold."""

from __future__ import annotations

import time
from collections.abc import Iterator

import torch
from torch import Tensor, nn

from memspace.errors import SettingsError
from memspace.limits import WHOLE
from memspace.measures.values import HeldOut
from memspace.passes.outputs import outputs
from memspace.progress import Progress
from memspace.task.task import Task
from memspace.training.refit import refit_many, rest_of

__all__ = ["cross_fit", "folds_of"]


def folds_of(folds: int, n: int) -> int:
    """Return into how many parts the examples are divided.

    Args:
        folds: as asked for.
        n: examples.

    Returns:
        at most n; 0: no refits.

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
    """Read outputs of networks that did not see the example, averaged over several partitions.

    A network is trained on the other folds − 1 of ``folds`` parts: two parts cost one training in all, K parts K − 1.
    Where the task's training can be repeated by memspace all are trained at once, else one after another by ``refit``.

    Args:
        task: which may know how to train.
        folds: parts of a partition.
        repeats: partitions.
        seed: of the partitions, and of the trainings.
        progress: where the trainings report.

    Returns:
        outputs (n, C) of every example; None where nothing can train.
    """
    if task.training is None and task.refit is None:
        return None
    start, n = time.perf_counter(), len(task.train)
    parts = [(r, p) for r in range(repeats) for p in _partition(n, folds, seed + 7 * r + 1)]
    mean: Tensor | None = None
    for (_, out), f in zip(parts, _outputs(task, n, [p for _, p in parts], seed, progress), strict=True):
        if mean is None:
            mean = f.new_zeros(n, *f.shape[1:], dtype=torch.float64)
        mean[out] += f.double() / repeats
    return None if mean is None else HeldOut(torch.arange(n), mean, folds, time.perf_counter() - start)


def _partition(n: int, folds: int, seed: int) -> list[Tensor]:
    order = torch.randperm(n, generator=torch.Generator().manual_seed(seed))
    return [order[k::folds].sort().values for k in range(folds)]


def _outputs(task: Task, n: int, parts: list[Tensor], seed: int, progress: Progress) -> Iterator[Tensor]:
    """Outputs of each part's examples, from a network trained without them."""
    rests = [rest_of(n, out) for out in parts]
    seeds = [seed + 1000 + k for k in range(len(parts))]
    for out, network in zip(parts, _networks(task, rests, seeds, progress), strict=True):
        yield outputs(Task(network, task.train, task.likelihood), task.train, index=out)[0].to(task.device)


def _networks(task: Task, rests: list[Tensor], seeds: list[int], progress: Progress) -> Iterator[nn.Module]:
    """One network for each part: all at once where memspace trains, else in turn."""
    if task.training is None and task.refit is not None:
        for rest, s in progress.track(zip(rests, seeds, strict=True), "refitting", len(rests)):
            yield task.refit(rest, s)
        return
    fewest = min(len(rest) for rest in rests)  # networks at once have equally many examples: one may be left out
    several = [rest if len(rest) == fewest else _without_one(rest, s) for rest, s in zip(rests, seeds, strict=True)]
    yield from refit_many(task, torch.stack(several), seeds, progress)


def _without_one(rest: Tensor, seed: int) -> Tensor:
    spared = int(torch.randint(len(rest), (1,), generator=torch.Generator().manual_seed(seed)))
    return torch.cat([rest[:spared], rest[spared + 1 :]])
