"""The engine against its goals and its peers: ``python -m benchmarks.engine [--check] [--only NAME] [--json F]``.

Three workloads (a: MLP, b: CNN, c: transformer), every work item of each in turn with every peer that offers it and
with a training epoch T_epoch (forward and backward at batch 256), in one process, after a warm-up: medians of
``--repeats``. Two larger ones (d: ResNet-18, e: pretrained sentence encoder) with a few items, one repeat beyond the
warm-up, and kronfluence. ``--only`` takes a workload (``b``), an item (``norms``), both (``b/norms``), ``scaling`` or
``fidelity``; the last is no part of a full run, it makes the table of ``docs/measured/which-fisher.md``.

Memory is the process's resident high-water mark, reset before each item's warm-up (``engine_clock.peak_memory``).
"""

from __future__ import annotations

import argparse
import platform
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import torch

from benchmarks.engine_clock import Timing, matmul_rate
from benchmarks.engine_fidelity import fidelity_rows
from benchmarks.engine_large import LARGE, LARGE_ITEMS, LARGE_PEERS
from benchmarks.engine_ours import OURS
from benchmarks.engine_table import EngineRow, show, write
from benchmarks.engine_turns import Turns, item_rows
from benchmarks.engine_whole import contraction_rows, planned_rows, scaling_rows
from benchmarks.engine_workloads import WORKLOADS, Workload
from benchmarks.peers import PEERS
from memspace.errors import TaskError

HERE = Path(__file__).resolve().parent
# Exact cotangents of a sequence: positions × classes of them.
BUDGET = {"e": 6144}  # MiB
ABSENT = {("c", "diagonal-exact"), ("c", "kfac-exact")}


def workload_rows(w: Workload, items: list[str], turns: Turns, rate: float) -> Iterator[list[EngineRow]]:
    """Rows as they are found, item by item."""
    ours: dict[str, Timing] = {}
    for item in items:
        if (w.name, item) in ABSENT:
            count = w.data[1][0].numel() * w.task.model(w.data[0][:1]).shape[-1]
            note = f"not run: {count:,} cotangents per example"
            yield [EngineRow(w.name, item, "memspace", detail=note)]
            continue
        print(f"{w.name}/{item}", flush=True)
        found, timings = item_rows(w, item, turns)
        ours[item] = timings["memspace"]
        for t in timings.values():
            t.result = None
        yield found
    if w.name in BUDGET and ours:
        yield [_memory_row(w, ours)]
    if "pairwise" in ours:
        contracted = contraction_rows(w, turns, rate)
        yield contracted
        if set(ours) >= {i for i in OURS if (w.name, i) not in ABSENT}:
            yield planned_rows(w, ours, contracted[-1].seconds, turns)


def _memory_row(w: Workload, ours: dict[str, Timing]) -> EngineRow:
    """The largest of the items' peaks, with all that the process held before it."""
    most = max(t.whole for t in ours.values())
    limit = BUDGET[w.name]
    text = f"{most:.0f} MiB resident: the libraries, the network and the data among it"
    return EngineRow(
        w.name, "memory of " + ", ".join(ours), "memspace", goal=f"≤ {limit} MiB", met=most <= limit, detail=text
    )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="exit 1 where a goal is missed")
    parser.add_argument("--only", help="a workload, an item, WORKLOAD/ITEM, scaling or fidelity")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--peers", help="comma-separated names, or none (default: all)")
    parser.add_argument("--peer-seconds", type=float, default=300.0, help="patience with a peer, per item")
    parser.add_argument(
        "--small", action="store_true", help="tiny data, to see that everything runs; figures mean nothing"
    )
    parser.add_argument("--data-root", type=Path, default=HERE.parent.parent / "shared" / "data")
    parser.add_argument("--json", type=Path, default=HERE / "out" / "engine.json")
    arguments = parser.parse_args()
    first, _, second = (arguments.only or "").partition("/")
    every = WORKLOADS | LARGE
    names = [first] if first in every else list(WORKLOADS if first == "fidelity" else every)
    items = [i for i in (second, first) if i in OURS] or list(OURS)
    known = not arguments.only or first in (*every, *OURS, "scaling", "fidelity")
    if not known or (second and second not in OURS):
        parser.error(f"--only: {arguments.only} is none of {', '.join((*every, *OURS, 'scaling', 'fidelity'))}")
    peers = None if arguments.peers is None else frozenset(arguments.peers.split(",")) - {"none"}
    if peers is not None and (unknown := peers - set(PEERS)):
        parser.error(f"--peers: {', '.join(sorted(unknown))}: none of {', '.join(PEERS)}")
    turns = Turns(arguments.repeats, arguments.peer_seconds, peers)
    rate = matmul_rate()
    facts: dict[str, object] = {
        "torch": torch.__version__,
        "threads": torch.get_num_threads(),
        "machine": platform.processor() or platform.machine(),
        "matmul GFLOP/s (float32, 2048)": rate / 1e9,
        "repeats": turns.repeats,
        "small": arguments.small,
    }
    print(", ".join(f"{k}: {v:.4g}" if isinstance(v, float) else f"{k}: {v}" for k, v in facts.items()), flush=True)
    rows: list[EngineRow] = []
    for name in names:
        if first == "scaling":
            continue
        asked = [i for i in items if name in WORKLOADS or i in LARGE_ITEMS or i == second]
        if not asked:
            continue
        try:
            w = every[name](arguments.data_root, arguments.small)
        except TaskError as error:
            rows.append(EngineRow(name, "all", "memspace", detail=f"not run: {error}"))
            continue
        print(f"{w.name}: {w.title}, {w.space.size:,} parameters", flush=True)
        often = (
            turns
            if name in WORKLOADS
            else replace(turns, repeats=1, peers=LARGE_PEERS if peers is None else peers & LARGE_PEERS)
        )
        found = [fidelity_rows(w)] if first == "fidelity" else workload_rows(w, asked, often, rate)
        for some in found:  # written as they come: a run that is stopped keeps what it measured
            rows += some
            write(rows, facts, arguments.json)
    if first in ("", "scaling"):
        rows += scaling_rows(arguments.data_root, arguments.small, turns)
    show(rows)
    write(rows, facts, arguments.json)
    missed = [r for r in rows if r.met is False]
    print(f"{len(missed)} goals missed" if missed else "every goal met")
    return int(arguments.check and bool(missed))


if __name__ == "__main__":
    sys.exit(main())
