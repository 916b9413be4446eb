"""One work item: an epoch, we and every peer in turn, after a warm-up of each; then the rows and their goals."""

from __future__ import annotations

import gc
import math
import statistics
from collections.abc import Callable
from dataclasses import dataclass

import torch

from benchmarks.engine_clock import Timing, at_most_seconds, clocked, peak_memory
from benchmarks.engine_ours import OURS, TOP, TOP_RESIDUAL, pairwise
from benchmarks.engine_outcome import Outcome, Work, difference, trace_of
from benchmarks.engine_table import EngineRow
from benchmarks.engine_workloads import Workload
from benchmarks.peers import peers_of
from memspace.metric.fisher import build

__all__ = ["Turns", "item_rows", "take_turns"]

# The goals, in training epochs beyond the eigendecompositions; products per vector.
GOALS = {
    "norms": 1.5,
    "diagonal-mc": 2.0,
    "kfac-mc": 2.0,
    "ekfac-mc": 4.5,
    "product": 3.0,
    "products-16": 1.5,
    "self-influence": 4.0,
    "top-20": 60.0,
}
# Times faster than kronfluence, on (a), (b), (c).
AHEAD = {
    "ekfac-mc": {"a": 40.0, "b": 5.0, "c": 2.0},
    "ekfac-empirical": {"a": 40.0, "b": 5.0, "c": 2.0},
    "self-influence": {"a": 100.0, "b": 5.0, "c": 2.0},
}
AGREE = 1e-5  # relative, where kronfluence and we are exact about the same thing
DOUBLED = 200  # examples of that comparison
GRAM_AHEAD = 1.5
LONG = 20.0  # seconds
SAMPLED = ("diagonal-mc", "kfac-mc", "ekfac-mc")
TOP_AGREE = 1e-3


@dataclass(frozen=True)
class Turns:
    """How often and how long: a peer whose repeats together pass ``patience`` seconds is not run again.

    ``peers``: only these; None for all.
    """

    repeats: int
    patience: float
    peers: frozenset[str] | None = None


def take_turns(w: Workload, works: dict[str, Callable[[Workload], Work]], turns: Turns) -> dict[str, Timing]:
    """Timings by name, ``"epoch"`` among them; the first of ``works`` is ours and always gets every repeat.

    Where one repeat is asked for, what takes as long as a peer may take to run twice is not warmed up, ours included,
    and an epoch that takes longer than ``LONG`` is the one that warms up.
    """
    ours = next(iter(works))
    patient = {ours} if turns.repeats > 1 else set()
    ready: dict[str, Work] = {}
    found = {name: Timing() for name in works}
    for name, prepare in works.items():
        try:
            with at_most_seconds(math.inf if name == ours else 3 * turns.patience):
                ready[name] = prepare(w)
            with at_most_seconds(math.inf if name == ours else turns.patience), peak_memory(found[name]):
                first, outcome = clocked(ready[name])
            found[name].result = outcome
            if name not in patient and first + outcome.apart > turns.patience / 2:  # long: this one counts
                found[name].seconds.append(first)
                found[name].apart.append(outcome.apart)
        except Exception as error:
            if name == ours:
                raise
            ready.pop(name, None)
            found[name].error = f"{type(error).__name__}: {' '.join(str(error).split())[:120]}"
        gc.collect()
    first = w.epoch()
    epochs = Timing()
    for _ in range(turns.repeats):
        long = turns.repeats == 1 and first > LONG
        epochs.seconds.append(first if long else statistics.median(w.epoch() for _ in range(3)))
        for name, work in ready.items():
            t = found[name]
            if name not in patient and t.spent > turns.patience / 2:
                continue
            try:
                with at_most_seconds(math.inf if name == ours else turns.patience):
                    seconds, outcome = clocked(work)
            except Exception as error:
                t.error = f"{type(error).__name__}: {' '.join(str(error).split())[:120]}"
                continue
            t.seconds.append(seconds)
            t.apart.append(outcome.apart)
            del outcome
    return found | {"epoch": epochs}


def _row(w: Workload, item: str, who: str, t: Timing, unit: float, per: int, **more: object) -> EngineRow:
    low, high = t.spread
    return EngineRow(
        w.name,
        item,
        who,
        seconds=t.median,
        apart=t.median_apart,
        epochs=t.median / unit / per,
        low=low / unit / per,
        high=high / unit / per,
        repeats=len(t.seconds),
        memory=t.memory,
        **more,  # type: ignore[arg-type]
    )


def _apart_from(w: Workload, item: str, ours: Outcome, theirs: Outcome) -> tuple[float, str]:
    """(relative difference, what it is of)."""
    if item in SAMPLED:
        names = None if isinstance(theirs.result, torch.Tensor) else set(theirs.result) & set(ours.result)
        a, b = trace_of(ours.result, names), trace_of(theirs.result, names)
        return abs(a / b - 1), "of the traces: labels are sampled"
    mine = ours.result
    if item == "top-20":
        ratio = mine.double() / theirs.result.double() - 1
        return float(ratio.abs().max()), "worst of 20 eigenvalues"
    if item == "pairwise" and theirs.blocks is not None and theirs.blocks != {b.name for b in w.space.blocks}:
        mine = pairwise(w, theirs.blocks)().result
        return difference(mine, theirs.result), f"on its {len(theirs.blocks)} of {len(w.space.blocks)} layers"
    if isinstance(mine, dict) and isinstance(theirs.result, torch.Tensor):
        mine = sum(mine.values())
    short = isinstance(mine, dict) and len(theirs.result) < len(mine)
    return difference(mine, theirs.result), f"on its {len(theirs.result)} of {len(mine)} layers" if short else ""


def item_rows(w: Workload, item: str, turns: Turns) -> tuple[list[EngineRow], dict[str, Timing]]:
    """The rows of one item: ours with its goal, each peer with its ratio, agreement and goal."""
    timings = take_turns(w, {"memspace": OURS[item], **peers_of(item, turns.peers)}, turns)
    unit = timings.pop("epoch").median
    per = 16 if item == "products-16" else 1
    ours = timings.pop("memspace")
    goal = GOALS.get(item) if w.name in "abc" else None
    reached = ours.median / unit / per
    what = " per vector" if per > 1 else ""
    asked = f"≤ {goal:g} T{what}" if goal else ""
    head = _row(w, item, "memspace", ours, unit, per, goal=asked, met=reached <= goal if goal else None)
    rows = [head]
    for who, t in timings.items():
        if t.error and not t.seconds:
            rows.append(EngineRow(w.name, item, who, memory=math.nan, detail=f"failed: {t.error}"))
            continue
        ratio = t.median / ours.median
        try:
            apart, note = _apart_from(w, item, ours.result, t.result)
        except Exception as error:  # results that cannot be held side by side are said, not dropped
            apart, note = math.nan, f"not comparable: {' '.join(str(error).split())[:80]}"
        rows.append(_row(w, item, who, t, unit, per, ratio=ratio, difference=apart, detail=note))
        rows += _peer_goals(w, item, who, ratio, ours, t)
    rows += _gram_goal(w, item, ours, timings)
    if item == "top-20":
        rows.append(_accuracy(w, ours))
    return rows, {"memspace": ours, **timings}


def _accuracy(w: Workload, ours: Timing) -> EngineRow:
    """Our eigenvalues against a run to a hundredth of the residual."""
    metric = build(w.task, w.space, "implicit")
    goal = f"≤ {TOP_AGREE:g}"
    if not hasattr(metric, "eigh"):
        return EngineRow(w.name, "top-20, accuracy", "memspace", goal=goal, detail="no eigh(k) to tighten")
    tight = metric.eigh(TOP, tolerance=TOP_RESIDUAL / 100).values[:TOP].double()
    apart = float((ours.result.result.double() / tight - 1).abs().max())
    return EngineRow(w.name, "top-20, accuracy", "memspace", difference=apart, goal=goal, met=apart <= TOP_AGREE)


def _peer_goals(w: Workload, item: str, who: str, ratio: float, ours: Timing, theirs: Timing) -> list[EngineRow]:
    if who != "kronfluence":
        return []
    rows = []
    ahead = AHEAD.get(item, {}).get(w.name)
    if ahead is not None:
        rows.append(EngineRow(w.name, f"{item}, speed", who, ratio=ratio, goal=f"≥ {ahead:g} ×", met=ratio >= ahead))
    if item not in SAMPLED:
        rows.append(_agreement(w, item, who))
    if not math.isnan(ours.memory):
        text = f"{ours.memory:.0f} against {theirs.memory:.0f} MiB"
        met = ours.memory <= theirs.memory
        rows.append(EngineRow(w.name, f"{item}, memory", who, goal="≤ the peer's", met=met, detail=text))
    return rows


def _agreement(w: Workload, item: str, who: str) -> EngineRow:
    """Both once more in float64 on the first examples.

    In float32 either is as far from the float64 result as from the other: residuals of well-fitted examples and
    eigenvalues below the damping lose more than half of the digits.
    """
    small, asked = w.doubled(DOUBLED), f"≤ {AGREE:g}"
    try:
        theirs = peers_of(item, frozenset({who}))[who](small)()
        apart, note = _apart_from(small, item, OURS[item](small)(), theirs)
    except Exception as error:
        apart, note = math.nan, f"failed: {' '.join(str(error).split())[:80]}"
    detail = f"float64, {small.n} examples {note}".strip()
    goal = f"{item}, agreement"
    return EngineRow(w.name, goal, who, difference=apart, goal=asked, met=bool(apart <= AGREE), detail=detail)


def _gram_goal(w: Workload, item: str, ours: Timing, peers: dict[str, Timing]) -> list[EngineRow]:
    if item != "gram":
        return []
    ran = [t.median for who, t in peers.items() if who in ("nngeometry", "torch.func") and t.seconds]
    if not ran:
        return [EngineRow(w.name, "gram, speed", "", detail="no peer ran", goal=f"≥ {GRAM_AHEAD:g} ×")]
    ratio = min(ran) / ours.median
    return [
        EngineRow(
            w.name, "gram, speed", "faster peer", ratio=ratio, goal=f"≥ {GRAM_AHEAD:g} ×", met=ratio >= GRAM_AHEAD
        )
    ]
