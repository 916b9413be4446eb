"""Predicted and measured degradation: weight noise, rounding and pruning; where the second order holds, and why not."""

from __future__ import annotations

import argparse
import math
from collections import defaultdict
from collections.abc import Iterator

import torch
from torch import Tensor

from benchmarks.memory_workloads import WORKLOADS
from benchmarks.table import Row, mean_interval
from memspace.measures.compensated import PruneSettings
from memspace.measures.degradation import Degradation, degradation
from memspace.measures.pruning import prune
from memspace.measures.rounding import rounded, rounded_compensated
from memspace.metric.fisher import build
from memspace.passes.space import ParameterSpace
from memspace.passes.verify import verified_space
from memspace.task.task import Task

LEVELS = (0.001, 0.01, 0.1, 1.0, 10.0)  # nats that the noise is predicted to cost
BITS = (8, 6, 4, 3, 2)
SHARES = (0.9, 0.7, 0.5, 0.3, 0.1, 0.05)
DRAWS, EXAMPLES = 4, 1000


def rows(arguments: argparse.Namespace) -> list[Row]:
    """Per change: measured KL, its ratio to each prediction, and the reason where the exact one is off by a tenth."""
    out: list[Row] = []
    for name, make in WORKLOADS.items():
        if arguments.workload not in (None, name):
            continue
        found: dict[str, list[Degradation]] = defaultdict(list)
        for seed in arguments.seeds:
            task = make(arguments.data_root, seed, arguments.small)
            space = verified_space(task)
            index = torch.randperm(len(task.train), generator=torch.Generator().manual_seed(seed))[:EXAMPLES]
            index = index.sort().values
            metrics = {k: build(task, space, k, index=index) for k in ("diagonal", "ekfac")}
            surgery = PruneSettings(rows=100 if arguments.small else 1000, seed=seed)
            for what, change in _changes(task, space, float(metrics["diagonal"].diagonal().sum()), surgery):
                found[what].append(degradation(task, space, change, metrics, index=index))
        for what, several in found.items():
            out += _rows(f"{name}: {what}", several)
    return out


def _changes(task: Task, space: ParameterSpace, trace: float, surgery: PruneSettings) -> Iterator[tuple[str, Tensor]]:
    theta = space.flat(task.model)
    generator = torch.Generator().manual_seed(surgery.seed)
    for level in LEVELS:
        for _ in range(DRAWS):
            noise = torch.randn(space.size, generator=generator)
            yield f"noise of {level:g} predicted nats", math.sqrt(2 * level / trace) * noise
    for bits in BITS:
        yield f"{bits} bits, rounded", rounded(task, space, bits) - theta
        yield f"{bits} bits, compensated", rounded_compensated(task, space, bits, surgery) - theta
    for method in ("magnitude", "fisher-diagonal"):
        for p in prune(task, space, method, SHARES):
            yield f"{method}, {p.share:.0%} kept", p.flat - theta


def _rows(what: str, several: list[Degradation]) -> list[Row]:
    ratios = [d.ratio for d in several]
    mean = mean_interval(ratios)
    worst = max(several, key=lambda d: abs(math.log(max(d.ratio, 1e-12))))
    holds = 0.9 <= mean[0] <= 1.1
    law, network = (mean_interval([getattr(d, k) for d in several])[0] for k in ("law", "network"))
    certain = mean_interval([d.certain for d in several])[0]
    detail = f"law ×{law:.2f}, network ×{network:.2f}, certain {certain:.0%}"
    detail += "; holds" if holds and not worst.reason else f"; {worst.reason}" if worst.reason else ""
    out = [
        Row("degrade", f"{what}: KL (nats)", "", *mean_interval([d.kl for d in several]), None, ""),
        Row("degrade", f"{what}: change of loss (nats)", "", *mean_interval([d.loss for d in several]), None, ""),
        Row("degrade", f"{what}: measured over exact vᵀFv", "", *mean, None, detail),
    ]
    for name in ("diagonal", "ekfac"):
        other = mean_interval([d.kl / d.predicted[name] for d in several])
        out.append(Row("degrade", f"{what}: measured over {name}", "", *other, None, ""))
    return out
