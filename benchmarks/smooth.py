"""Does a training follow its data? A derivative, an edit or a second retraining can only tell what it does if so.

The rate is halved until retraining says that it is smooth: the change with a tenth of the examples at weight ½ tells
that at weight 0. No method under test, no subset and no outcome that one is judged on enters.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from memspace.passes.outputs import outputs
from memspace.task.builtin.train import fit
from memspace.task.task import Task
from memspace.training.many import train_many

__all__ = ["at_rate", "outcomes", "smooth", "smoothness", "subsets"]

SMOOTH, HALVINGS, JUDGED = 0.9, 4, 300


def smooth(task: Task, seed: int, least: float = SMOOTH) -> tuple[Task, dict[str, float]]:
    """The task at the first of its rate, half of it, ... whose smoothness is ``least``, and what that rate gives."""
    assert task.training is not None
    facts: dict[str, float] = {}
    found = task
    for k in range(HALVINGS + 1):
        rate = task.training.recipe.rate / 2**k
        found = at_rate(task, rate, seed) if k else task
        value = smoothness(found, seed)
        print(f"  {task.name}, seed {seed}: rate {rate:g}, smooth {value:.3f}", flush=True)
        facts |= {"smoothness at the workload's own rate": value} if not k else {}
        facts |= {"rate": rate, "smoothness at it": value}
        if value >= least:
            break
    assert found.test is not None
    f, y = outputs(found, found.test)
    facts["test loss at it (nats)"] = float(task.likelihood.nll(f.double(), y).mean())
    facts["test accuracy at it"] = float((f.argmax(-1) == y).double().mean())
    return found, facts


def at_rate(task: Task, rate: float, seed: int) -> Task:
    """The task trained anew at another rate."""
    assert task.training is not None
    training = replace(task.training, recipe=replace(task.training.recipe, rate=rate))
    whole = task.train.batch(range(len(task.train)))
    model = fit(training.make, whole.x, whole.y, training.recipe, seed=seed, record=False).model
    return replace(task, model=model, training=training, run=None, refit=None)


def smoothness(task: Task, seed: int) -> float:
    """Correlation over 8 subsets between the changes with a tenth at weight ½ and at 0, mean over the last images."""
    assert task.test is not None
    queries = torch.arange(len(task.test))[-JUDGED:]
    out = subsets(len(task.train), 0.1, 8, seed + 500)
    weights = torch.cat([(1 + out) / 2, out, torch.ones(1, out.shape[1])])
    q = outcomes(task, queries, seeds=[seed] * len(weights), weights=weights).double()
    half, whole = (c - c.mean(0) for c in (q[:8] - q[-1], q[8:16] - q[-1]))
    return float(((half * whole).sum(0) / (half.norm(dim=0) * whole.norm(dim=0)).clamp_min(1e-300)).mean())


def subsets(n: int, share: float, count: int, seed: int) -> Tensor:
    """(count, N) weights, 0 for ``share`` of the examples."""
    generator = torch.Generator().manual_seed(1000 + seed)
    weights = torch.ones(count, n)
    for row in weights:
        row[torch.randperm(n, generator=generator)[: round(share * n)]] = 0.0
    return weights


def outcomes(task: Task, queries: Tensor, **options: object) -> Tensor:
    """−loss (S, Q) of networks trained together."""
    assert task.training is not None
    assert task.test is not None
    whole, part = task.train.batch(range(len(task.train))), task.test.batch(queries)
    nets = train_many(task.training, whole.x, whole.y, task.likelihood, **options)  # type: ignore[arg-type]
    return torch.stack([-task.likelihood.nll(f, part.y) for f in nets.outputs(part.x)])
