"""LDS of single-network influence: our engines with the damping they choose, kronfluence, TRAK, TracIn, the ceiling.

The outcome is the margin of 100 test images. No engine sees the truth: the damping is chosen on other halves, other
seeds and other test images than those it is judged on.
"""

from __future__ import annotations

import argparse
import importlib.util
import sys
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from benchmarks.lds import Truth, lds, retrain, split_half
from benchmarks.memory_workloads import WORKLOADS
from benchmarks.table import Row, at_least, mean_interval
from memspace.attribution.attribution import attribute
from memspace.attribution.prepared import Prepared, prepared, score_pass
from memspace.attribution.question import ask
from memspace.attribution.settings import InfluenceSettings
from memspace.attribution.target import TARGETS
from memspace.attribution.unrolled import Unrolled
from memspace.task.data import Data
from memspace.task.task import Task

__all__ = ["rows"]

SUBSETS, SEEDS, QUERIES = 64, 2, 100
CURVE = tuple(10 ** (k / 2) for k in range(-7, 2))  # γ of the curves and of kronfluence's sweep
LEAST = 1e-3  # below, conjugate gradients take hundreds of steps to no gain
ENGINES = ("iterative", "ekfac", "dual")
MEMBERS = 10
UNROLLED = {"digits": (10, QUERIES), "fashion-mnist": (5, 25)}  # networks and queries of the gradient's ensemble
SINGLE = "iterative"  # what the goals are about: the engine that ``auto`` takes on both workloads
ON_HALVES, THROUGH = f"ensemble of {SINGLE}, each trained on a half", "ensemble of gradients through the training"


@dataclass
class Found:
    """Figures of one workload by name, one per seed of the task."""

    values: dict[str, list[float]] = field(default_factory=dict)
    details: dict[str, list[str]] = field(default_factory=dict)
    gains: dict[str, list[float]] = field(default_factory=dict)  # of the ensembles over the single network

    def add(self, name: str, value: float, detail: str = "") -> None:
        """Keep one seed's figure."""
        self.values.setdefault(name, []).append(value)
        if detail:
            self.details.setdefault(name, []).append(detail)
        print(f"  {name}: {value:.4f} {detail}", flush=True, file=sys.stderr)


def rows(arguments: argparse.Namespace) -> list[Row]:
    """All rows of the part."""
    out: list[Row] = []
    for workload, make in WORKLOADS.items():
        if arguments.workload not in (None, workload):
            continue
        found = Found()
        for seed in arguments.seeds:
            print(f"lds {workload}, seed {seed}", flush=True, file=sys.stderr)
            _one(make(arguments.data_root, seed, arguments.small), seed, arguments.small, found)
        out += _rows(workload, found)
    return out


def _one(task: Task, seed: int, small: bool, found: Found) -> None:
    target = TARGETS["margin"]
    queries = torch.arange(20 if small else QUERIES)
    start = time.perf_counter()
    truth = retrain(task, target, queries, 8 if small else SUBSETS, SEEDS, seed)
    found.add("ceiling", split_half(truth), f"{time.perf_counter() - start:.0f} s of retraining")
    single = torch.empty(0)
    settings = InfluenceSettings(seed=seed, rows=500 if small else 3_500)
    for engine in ENGINES:
        start = time.perf_counter()
        ready = prepared(task, engine=engine, target=target, queries=queries, settings=settings)
        b = ask(task, ready.space, target, _test(task), queries).gradients
        chosen = _scores(task, ready, b, ready.damping.value)
        if engine == SINGLE:
            single = chosen
        took = time.perf_counter() - start
        found.add(engine, lds(chosen, truth), f"γ {ready.damping.value:.2g} ({ready.damping.rule}), {took:.0f} s")
        rough = replace(ready, engine=replace(ready.engine, tolerance=0.05))
        for g in CURVE:
            if engine != "iterative" or g >= LEAST:
                found.add(f"{engine} at γ = {g:.2g}", lds(_scores(task, rough, b, g), truth))
    _peers(task, queries, truth, found)
    _ensembles(task, queries, single, truth, settings, found)


def _test(task: Task) -> Data:
    assert task.test is not None
    return task.test


def _scores(task: Task, ready: Prepared, b: Tensor, damping: float) -> Tensor:
    return score_pass(task, ready.space, ready.engine.solve(b, damping).x)["scores"].t()


def _peers(task: Task, queries: Tensor, truth: Truth, found: Found) -> None:
    from benchmarks.peers import attribution

    start = time.perf_counter()
    sweep: list[float | None] = [1e-8, None, *CURVE]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        each = [lds(s, truth) for s in attribution.kronfluence_scores(task, queries, sweep)]
    took = time.perf_counter() - start
    found.add("kronfluence EKFAC, its default damping 1e-8", each[0])
    found.add("kronfluence EKFAC, a tenth of each layer's mean eigenvalue", each[1])
    best = max(range(len(each)), key=each.__getitem__)
    where = "a tenth of the mean eigenvalue" if sweep[best] is None else f"γ {sweep[best]:.2g}"
    found.add("kronfluence EKFAC, best of its dampings", each[best], f"{where}, {took:.0f} s for the sweep")
    others: dict[str, tuple[str, Callable[[Task, Tensor], Tensor]]] = {
        "TRAK, one network (dattri)": ("dattri", attribution.trak_scores),
        "TracIn, 5 checkpoints (captum)": ("captum", attribution.tracin_scores),
    }
    for name, (package, scores) in others.items():
        if importlib.util.find_spec(package) is None:
            print(f"  {name}: {package} is not installed", file=sys.stderr)
            continue
        start = time.perf_counter()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            found.add(name, lds(scores(task, queries), truth), f"{time.perf_counter() - start:.0f} s")


def _ensembles(
    task: Task, queries: Tensor, single: Tensor, truth: Truth, settings: InfluenceSettings, found: Found
) -> None:
    """Networks of the task's recipe at other seeds, either trained on halves of the data or, at mean weight ½, on all.

    The gradient through the training is asked for the first queries only where a training is long: a query costs about
    two trainings per network.
    """
    members, few = UNROLLED[task.name]
    point = Unrolled(100, left_out=0.5, checks=0)
    for name, engine, count, asked in (
        (ON_HALVES, f"ensemble:{SINGLE}", MEMBERS, queries),
        (THROUGH, "ensemble", members, queries[:few]),
    ):
        part = replace(truth, outcomes=truth.outcomes[..., : len(asked)])
        start = time.perf_counter()
        got = attribute(task, asked, engine=engine, target="margin", networks=count, training=point, settings=settings)
        took = time.perf_counter() - start
        value = lds(got.scores, part)
        damping = "" if got.damping is None else f", γ {got.damping:.2g}"
        found.add(name, value, f"{count} networks, {len(asked)} queries{damping}, {took:.0f} s")
        found.gains.setdefault(name, []).append(value - lds(single[: len(asked)], part))


def _rows(workload: str, found: Found) -> list[Row]:
    part = f"lds {workload}"
    out = []
    peer = "kronfluence EKFAC, best of its dampings"
    for name, values in found.values.items():
        mean, low, high = mean_interval(values)
        out.append(Row(part, name, "", mean, low, high, None, "; ".join(found.details.get(name, ()))))
    gain = [a - b for a, b in zip(found.values[SINGLE], found.values[peer], strict=True)]
    out.append(at_least(part, f"{SINGLE} minus {peer}", gain, 0.0))
    for name, gain in found.gains.items():
        out.append(at_least(part, f"{name} minus {SINGLE}, same queries", gain, 0.1))
    return out
