"""The gradient through the training against retraining: same seed and batch order, and over seeds; cost and memory.

Truth, same seed: networks retrained with the weights of left-out examples set to 0, everything else as it was. Over
seeds: half-subsets trained with other seeds, either with weights set to 0 (all steps kept) or on the subset alone (half
the steps, the usual linear datamodelling score). Scores are Spearman correlations over subsets, mean over outcomes
(−loss of test examples). Where a training is rough (``Size.points``) the derivative is the median over several points,
and that at one is measured beside it. The goals are about a training that follows its data (``benchmarks/smooth.py``)
as closely as the goal asks: where retraining at half the weight does not tell retraining without it, no derivative can.
Where that is not the workload's own training, the latter is measured beside it.
"""

from __future__ import annotations

import argparse
import resource
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, partial

import numpy as np
import torch
from scipy.stats import spearmanr
from torch import Tensor

from benchmarks.memory_workloads import WORKLOADS
from benchmarks.smooth import outcomes, smooth, subsets
from benchmarks.table import Row, at_least, mean_interval
from memspace.attribution.ensemble import ensemble
from memspace.attribution.result import Influence
from memspace.attribution.unrolled import Unrolled, unrolled
from memspace.task.task import Task
from memspace.training.replay import TrainingReplay

__all__ = ["rows"]

Ask = Callable[..., Influence]  # (seed, share left out, checks, points) -> scores
GOALS = {"digits": {0.1: 0.97, 0.5: 0.70}, "fashion-mnist": {0.1: 0.90}}


@dataclass(frozen=True)
class Size:
    """How much is measured.

    Args:
        queries: outcomes; subsets: retrained per share; members: networks of the ensemble (0: not measured);
        halves: half-subsets of the truth over seeds, by two seeds.
        points: that the derivative at 10% left out is taken at.
    """

    queries: int
    subsets: int
    members: int
    halves: int
    points: int = 1


SIZES = {"digits": Size(16, 32, 5, 64), "fashion-mnist": Size(8, 24, 0, 0, 3)}
SMALL = Size(4, 8, 2, 8, 3)


def rows(arguments: argparse.Namespace) -> list[Row]:
    """Every workload asked for, over the seeds."""
    found: list[Row] = []
    for name in WORKLOADS:
        if arguments.workload in (None, name):
            size = SMALL if arguments.small else SIZES[name]
            by_seed = [_measure(name, arguments, seed, size) for seed in arguments.seeds]
            found += _table(name, by_seed)
    return found


def _table(name: str, by_seed: list[dict[str, float]]) -> list[Row]:
    table = []
    for key in by_seed[0]:
        values = [one[key] for one in by_seed]
        share = {"LDS, 10% left out": 0.1, "LDS, 50% left out": 0.5}.get(key)
        goal = GOALS[name].get(share) if share is not None else None
        if goal is not None:
            table.append(at_least("unrolled", f"{name}: {key}", values, goal))
        else:
            mean, low, high = mean_interval(values)
            table.append(Row("unrolled", f"{name}: {key}", "", mean, low, high, None))
    return table


def _measure(name: str, arguments: argparse.Namespace, seed: int, size: Size) -> dict[str, float]:
    given = WORKLOADS[name](arguments.data_root, seed, arguments.small)
    queries = torch.arange(size.queries)
    found: dict[str, float] = {}
    task, facts = smooth(given, seed, max(GOALS[name].values()))
    found |= facts
    if task is not given:
        weights = subsets(len(given.train), 0.1, size.subsets, seed)
        truth = outcomes(given, queries, seeds=[seed] * len(weights), weights=weights)
        found["LDS, 10% left out, the workload's own recipe"] = lds(_ask(given, queries, seed, 0.1, 0), weights, truth)
    ask = cache(partial(_ask, task, queries))  # one pass for all that asks the same
    for share in (0.1, 0.5) if size.members else (0.1,):
        weights = subsets(len(task.train), share, size.subsets, seed)
        truth = outcomes(task, queries, seeds=[seed] * len(weights), weights=weights)
        points = size.points if share == 0.1 else 1
        scored = ask(seed, share, 8 if share == 0.1 else 0, points)
        found[f"LDS, {share:.0%} left out"] = lds(scored, weights, truth)
        if points > 1:
            found[f"LDS, {share:.0%} left out, one point"] = lds(ask(seed, share, 0), weights, truth)
        found[f"LDS, {share:.0%} left out, derivative at w = 1"] = lds(ask(seed, 0.0, 0), weights, truth)
        if share == 0.1:
            found |= _facts(task, scored, queries, weights, truth, seed)
    if size.halves:
        found |= _over_seeds(task, queries, seed, size, ask)
    found["peak memory of the process (GiB)"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    return found


def _ask(task: Task, queries: Tensor, seed: int, left_out: float, checks: int, points: int = 1) -> Influence:
    return unrolled(task, queries, settings=Unrolled(seed, left_out, points=points, checks=checks))


def _facts(
    task: Task, scored: Influence, queries: Tensor, weights: Tensor, truth: Tensor, seed: int
) -> dict[str, float]:
    """Ceiling, check and cost."""
    few = weights[:4]
    again = torch.cat([_alone(task, queries, w, seed) for w in few])
    names = ("agreement", "metasmoothness", "trainings_per_outcome", "reproduction")
    facts = {name: scored.diagnostic(f"unrolled.{name}") for name in names}
    value = {name: getattr(m, "value", float("nan")) for name, m in facts.items()}
    start = time.perf_counter()
    TrainingReplay.of(task, seed).run()
    whole = time.perf_counter() - start
    start = time.perf_counter()
    outcomes(task, queries, seeds=[seed] * 8, weights=weights[:8])
    eight = time.perf_counter() - start
    kept = TrainingReplay.of(task, seed)
    everything, root = kept.run(), kept.run(every=max(1, round(kept.steps**0.5)))
    return {
        "rounding between two ways of retraining, share of the effects' spread": float(
            (again - truth[: len(few)]).std() / truth.std(0).mean()
        ),
        "the check: correlation with 8 retrained subsets": value["agreement"],
        "the check: metasmoothness": value["metasmoothness"],
        "weights of the repeated training, distance over way": value["reproduction"],
        "cost of an outcome (trainings)": value["trainings_per_outcome"],
        "cost of 8 networks retrained together (trainings)": eight / whole,
        "all states kept (MiB)": everything.kept_bytes / 2**20,
        "states kept at √T (MiB)": root.kept_bytes / 2**20,
    }


def _over_seeds(task: Task, queries: Tensor, seed: int, size: Size, ask: Ask) -> dict[str, float]:
    n = len(task.train)
    weights = subsets(n, 0.5, size.halves, seed + 100)
    index = torch.stack([w.nonzero()[:, 0] for w in weights])
    kept = [outcomes(task, queries, seeds=[1000 + s] * len(weights), weights=weights) for s in range(2)]
    alone = [
        outcomes(task, queries, seeds=[2000 + s * len(index) + k for k in range(len(index))], index=index)
        for s in range(2)
    ]
    seeds = [seed, *(seed * 100 + 10 + m for m in range(size.members - 1))]
    at_half = ensemble(task, lambda t, s: ask(s, 0.5, 0), seeds=seeds)
    one, half = ask(seed, 0.0, 0), ask(seed, 0.5, 0)
    found = {}
    for kind, truths in (("all steps", kept), ("on halves alone", alone)):
        truth = (truths[0] + truths[1]) / 2
        r = _spearman(truths[0], truths[1])
        found[f"over seeds, {kind}: correlation of the two seeds' truths"] = r
        found[f"over seeds, {kind}: ceiling (Spearman–Brown, root)"] = (2 * max(r, 0.0) / (1 + r)) ** 0.5
        found[f"over seeds, {kind}: one network, at w = 1"] = lds(one, weights, truth)
        found[f"over seeds, {kind}: one network, at w = ½"] = lds(half, weights, truth)
        found[f"over seeds, {kind}: ensemble of {size.members}, at w = ½"] = lds(at_half, weights, truth)
    gain = lds(at_half, weights, (alone[0] + alone[1]) / 2) - lds(one, weights, (alone[0] + alone[1]) / 2)
    found["ensemble above the single network at w = 1"] = gain
    return found


def lds(scored: Influence, weights: Tensor, truth: Tensor) -> float:
    """Linear datamodelling score (Park et al. 2023) of the scores against outcomes (S, Q) at weights (S, N)."""
    return _spearman(scored.group(weights == 0), truth)


def _spearman(a: Tensor, b: Tensor) -> float:
    """Over subsets, mean over outcomes."""
    return float(np.mean([spearmanr(p, q).statistic for p, q in zip(a.T.numpy(), b.T.numpy(), strict=True)]))


def _alone(task: Task, queries: Tensor, weights: Tensor, seed: int) -> Tensor:
    """As :func:`outcomes`, one network by the replay."""
    assert task.test is not None
    replay, part = TrainingReplay.of(task, seed, weights=weights), task.test.batch(queries)
    with torch.no_grad():
        f = replay.outputs(replay.unpack(replay.run().final), part.x)
    return -task.likelihood.nll(f, part.y)[None]
