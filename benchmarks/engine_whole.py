"""What is measured across items: the contraction of pairwise scores, one planned pass, and growth in N."""

from __future__ import annotations

import math
import statistics
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from benchmarks.engine_clock import Timing, clocked, peak_memory
from benchmarks.engine_ours import backward, planned, prepared_queries, scored
from benchmarks.engine_outcome import Outcome
from benchmarks.engine_table import EngineRow
from benchmarks.engine_turns import Turns, take_turns
from benchmarks.engine_workloads import WORKLOADS, Workload, fashion_images
from memspace.passes.engine import PassOptions, run_pass
from memspace.passes.statistics import GradientNorms, KroneckerFactors
from memspace.task.data import Data
from memspace.task.task import Task

__all__ = ["contraction_rows", "planned_rows", "scaling_rows"]

# What one who wants a single result runs: scores start with an EKFAC of their own.
STREAMED = ("norms", "diagonal-mc", "kfac-mc", "ekfac-mc", "ekfac-mc", "self-influence", "ekfac-mc", "pairwise")
OTHER = ("product", "products-16", "gram", "top-20")
SHARE, WHOLE, FLAT = 0.7, 0.6, 0.1


def contraction_rows(w: Workload, turns: Turns, rate: float) -> list[EngineRow]:
    """2·N·Q·P operations in the seconds beyond one pass, over the machine's matrix-product rate.

    The Q queries' gradients are preconditioned before, at a cost that does not grow with N: a row of its own.
    """
    prepared = take_turns(w, {"memspace": prepared_queries}, turns)["memspace"]
    found = take_turns(w, {"memspace": scored, "backward": backward}, turns)
    beyond = found["memspace"].median - found["backward"].median
    operations = 2 * w.n * len(w.queries[1]) * w.space.size
    share = operations / rate / beyond if beyond > 0 else math.inf
    floor = found["backward"].median
    detail = f"{operations / 1e9:.3g} GFLOP in {beyond:.3g} s beyond a pass of {floor:.3g} s"
    goal = f"≥ {SHARE:.0%} of {rate / 1e9:.0f} GFLOP/s"
    met = share >= SHARE
    who = "memspace"
    return [
        EngineRow(w.name, "pairwise, queries prepared", who, prepared.median, repeats=len(prepared.seconds)),
        EngineRow(w.name, "pairwise, contraction", who, beyond, ratio=share, goal=goal, met=met, detail=detail),
    ]


def planned_rows(w: Workload, ours: dict[str, Timing], contraction: float, turns: Turns) -> list[EngineRow]:
    """One planned run over the sum of the parts, each part from scratch.

    The contraction of the pairwise scores is the same 2·N·Q·P operations on both sides and leaves the first row;
    products, the Gram matrix and the leading eigenvalues share no pass with anything and stand on both sides of the
    second.
    """
    found = take_turns(w, {"memspace": planned}, turns)
    unit, t = found["epoch"].median, found["memspace"]
    parts = sum(ours[i].median for i in STREAMED)
    rest = sum(ours[i].median for i in OTHER)
    rows = []
    for what, whole, total in (
        ("planned pass, without contraction", t.median - contraction, parts - contraction),
        ("planned pass, everything", t.median + rest, parts + rest),
    ):
        share = whole / total
        detail = f"{whole:.3g} of {total:.3g} s; ratio is the share"
        row = EngineRow(
            w.name, what, "memspace", whole, t.median_apart, whole / unit, repeats=len(t.seconds), detail=detail
        )
        rows.append(replace(row, ratio=share, goal=f"≤ {WHOLE:.0%}", met=share <= WHOLE))
    return rows


def scaling_rows(root: Path, small: bool, turns: Turns) -> list[EngineRow]:
    """Time per example and memory of one pass (norms and factors) on growing shares of 60,000 images."""
    w = WORKLOADS["b"](root, small)
    if not small:
        w = _enlarged(w, root)
    counts = [25, 50, 100] if small else [1000, 4000, 16_000, 60_000]
    seconds: dict[int, list[float]] = {n: [] for n in counts}
    memory: dict[int, float] = {}
    for n in counts:
        t = Timing()
        with peak_memory(t):
            _factor_pass(w, n)
        memory[n] = t.memory
    for _ in range(max(1, turns.repeats // 2)):
        for n in counts:
            seconds[n].append(_factor_pass(w, n))
    each = {n: statistics.median(s) / n for n, s in seconds.items()}
    slope = float(np.polyfit(np.log(counts), np.log([each[n] for n in counts]), 1)[0])
    detail = ", ".join(f"{n:,}: {1e6 * each[n]:.3g} µs" for n in counts)
    met = abs(slope) <= FLAT
    fit = EngineRow(
        "b", "time per example ∝ N^slope", "memspace", ratio=slope, goal=f"|slope| ≤ {FLAT:g}", met=met, detail=detail
    )
    grown = memory[counts[-1]] / max(memory[counts[0]], 1.0)
    text = ", ".join(f"{n:,}: {memory[n]:.0f} MiB" for n in counts)
    flat = EngineRow(
        "b", "memory, largest over smallest N", "memspace", ratio=grown, goal="≤ 1.5", met=grown <= 1.5, detail=text
    )
    return [fit, flat]


def _factor_pass(w: Workload, n: int) -> float:
    blocks = w.space.blocks

    def run() -> Outcome:
        statistics_ = [GradientNorms(blocks, "empirical"), KroneckerFactors(blocks, "mc")]
        run_pass(w.task, w.space, statistics_, PassOptions(index=torch.arange(n)))
        return Outcome(None)

    return clocked(run)[0]


def _enlarged(w: Workload, root: Path) -> Workload:
    """The same network on all 60,000 training images."""
    x, y = fashion_images(root, "train", 60_000)
    return Workload(w.name, w.title, Task(model=w.task.model, train=Data((x, y)), name=w.name), w.queries)
