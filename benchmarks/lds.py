"""The linear datamodelling score (Park et al. 2023) and the retrained networks it is measured against."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from scipy.stats import rankdata
from torch import Tensor

from memspace.attribution.target import Target
from memspace.task.task import Task
from memspace.training.many import train_many

__all__ = ["Truth", "lds", "rank_correlation", "retrain", "split_half"]

PORTION = 32  # networks whose outputs are read before the next ones are trained


@dataclass(frozen=True)
class Truth:
    """Networks retrained on random halves of the training data.

    Args:
        kept: (S, N) True where an example was trained on; outcomes: (S, R, Q) of R seeds each.
    """

    kept: Tensor
    outcomes: Tensor


def retrain(task: Task, target: Target, queries: Tensor, subsets: int, seeds: int, seed: int) -> Truth:
    """``subsets`` random halves, each trained with ``seeds`` seeds of their own; queries are test examples."""
    assert task.training is not None
    assert task.test is not None
    n = len(task.train)
    generator = torch.Generator().manual_seed(10_000 + seed)
    index = torch.stack([torch.randperm(n, generator=generator)[: n // 2].sort().values for _ in range(subsets)])
    kept = torch.zeros(subsets, n, dtype=torch.bool).scatter_(1, index, True)
    whole, asked = task.train.batch(range(n)), task.test.batch(queries)
    rows, own = index.repeat_interleave(seeds, 0), [20_000 + 1_000 * seed + k for k in range(subsets * seeds)]
    found = []
    for k in range(0, len(own), PORTION):
        networks = train_many(
            task.training,
            whole.x,
            whole.y,
            task.likelihood,
            seeds=own[k : k + PORTION],
            index=rows[k : k + PORTION],
        )
        for f in networks.outputs(asked.x):
            found.append(target.value(task.likelihood, f.double(), asked.y).detach())
    return Truth(kept, torch.stack(found).reshape(subsets, seeds, -1))


def rank_correlation(a: Tensor, b: Tensor) -> Tensor:
    """Spearman's ρ of every column of (S, Q), (Q,)."""
    ranks = [torch.from_numpy(rankdata(t.double().numpy(), axis=0)) for t in (a, b)]
    x, y = (r - r.mean(0) for r in ranks)
    found: Tensor = (x * y).sum(0) / (x.norm(dim=0) * y.norm(dim=0)).clamp_min(1e-300)
    return found


def lds(scores: Tensor, truth: Truth) -> float:
    """Mean over queries of ρ between the sum of a subset's scores and its outcomes' mean over seeds.

    Args:
        scores: (Q, N), positive: supports.
    """
    predicted = truth.kept.double() @ scores.double().t()
    return float(rank_correlation(predicted, truth.outcomes.mean(1)).mean())


def split_half(truth: Truth) -> float:
    """The ceiling: the correlation that an estimate without error would have with the mean over R seeds.

    With r the correlation between two halves of the seeds, the mean over all has reliability 2r/(1 + r)
    (Spearman–Brown), and no estimate of the expected outcome correlates with it above the root of that.
    """
    r = truth.outcomes.shape[1] // 2
    half = rank_correlation(truth.outcomes[:, :r].mean(1), truth.outcomes[:, r : 2 * r].mean(1)).clamp_min(0).mean()
    return float((2 * half / (1 + half)).sqrt())
