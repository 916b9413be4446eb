"""Pruning methods on one axis: test accuracy against share kept, no retraining; and lottery tickets, retrained."""

from __future__ import annotations

import argparse
from collections import defaultdict

from benchmarks.memory_workloads import WORKLOADS
from benchmarks.table import Row, mean_interval
from memspace.errors import TaskError
from memspace.experiments.agnostic import agnostic_scores, random_topologies, topology_of
from memspace.experiments.lottery import Lottery, lottery
from memspace.measures.compensated import PruneSettings
from memspace.measures.efficiency import accuracy_curve
from memspace.measures.pruning import prune
from memspace.passes.verify import verified_space
from memspace.progress import Silent

SHARES = (0.5, 0.4, 0.3, 0.2, 0.1, 0.05)
METHODS = ("magnitude", "fisher-diagonal", "fisher-inverse")
ROUNDS, CONTROLS = 13, (3, 7, 10, 13)  # 0.8^13 = 5.5% kept


def rows(arguments: argparse.Namespace) -> list[Row]:
    """Accuracy and loss per method and share; the goal: fisher-inverse above magnitude everywhere."""
    out: list[Row] = []
    for name, make in WORKLOADS.items():
        if arguments.workload not in (None, name):
            continue
        accuracy: dict[tuple[str, float], list[float]] = defaultdict(list)
        loss: dict[tuple[str, float], list[float]] = defaultdict(list)
        tickets: dict[tuple[str, float], list[float]] = defaultdict(list)
        agnostic: dict[str, list[float]] = defaultdict(list)
        for seed in arguments.seeds:
            task = make(arguments.data_root, seed, arguments.small)
            space = verified_space(task)
            for method in (*METHODS, "geometric-median"):
                found = _networks(task, space, method, PruneSettings(rows=100 if arguments.small else 1000, seed=seed))
                c = accuracy_curve(
                    task,
                    space,
                    [space.flat(task.model), *found.values()],
                    method,
                    data=task.test,
                    index=None,
                    kept=(1.0, *found),
                    progress=Silent(),
                )
                for share, a, nll in zip((1.0, *found), c.accuracy, c.loss, strict=True):
                    accuracy[method, share].append(float(a))
                    loss[method, share].append(float(nll))
            how = (
                Lottery(rounds=3, controls=(3,), seed=seed)
                if arguments.small
                else Lottery(ROUNDS, 0.2, 0, CONTROLS, seed)
            )
            for t in lottery(task, how):
                tickets[t.arm, round(t.share, 3)].append(t.accuracy)
            for density in (0.1, 0.5, 1.0):
                score = agnostic_scores(task, random_topologies(task, 20, density, seed=seed))
                agnostic[f"random signs, density {density:g}: mean over the grid"].append(float(score.accuracy.mean()))
                agnostic[f"random signs, density {density:g}: best on training data"].append(float(score.best.mean()))
            own = agnostic_scores(task, [topology_of(task)])
            agnostic["the trained network's signs: mean over the grid"].append(float(own.accuracy.mean()))
            agnostic["the trained network's signs: best on training data"].append(float(own.best.mean()))
            agnostic["chance"].append(own.chance)
        out += _table(name, accuracy, loss)
        for (arm, share), values in tickets.items():
            out.append(_row(f"lottery {arm}, {share:.1%} kept, accuracy", name, values))
        out += [_row(f"one shared weight, {what}", name, values) for what, values in agnostic.items()]
    return out


def _networks(task, space, method, surgery):  # type: ignore[no-untyped-def]
    if method != "geometric-median":
        return {p.share: p.flat for p in prune(task, space, method, SHARES, surgery=surgery)}
    found = {}
    for share in SHARES:  # what its layers allow; filed under the share asked for
        try:
            found[share] = prune(task, space, method, (share,))[0].flat
        except TaskError:
            break
    return found


def _row(quantity: str, workload: str, values: list[float], goal: str = "", met: bool | None = None) -> Row:
    return Row("prune", f"{workload}: {quantity}", goal, *mean_interval(values), met, f"{len(values)} seeds")


def _table(name: str, accuracy: dict, loss: dict) -> list[Row]:  # type: ignore[type-arg]
    out = [_row("nothing cut, accuracy", name, accuracy["magnitude", 1.0])]
    for method, share in accuracy:
        if share < 1:
            out.append(_row(f"{method}, {share:.0%} kept, accuracy", name, accuracy[method, share]))
            out.append(_row(f"{method}, {share:.0%} kept, loss", name, loss[method, share]))
    apart = False
    for share in SHARES:
        ours, theirs = accuracy["fisher-inverse", share], accuracy["magnitude", share]
        change = [a - b for a, b in zip(ours, theirs, strict=True)]
        out.append(
            _row(f"fisher-inverse less magnitude, {share:.0%} kept", name, change, "> 0", mean_interval(change)[0] > 0)
        )
        low, high = mean_interval(ours)[1], mean_interval(theirs)[2]
        apart = apart or (low is not None and high is not None and low > high)
    out.append(Row("prune", f"{name}: intervals apart somewhere", "yes", float(apart), None, None, apart, ""))
    return out
