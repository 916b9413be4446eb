"""Paths between digits networks: certified bounds, the length found over the straight line, what it costs."""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from benchmarks.memory_workloads import digits as noisy_digits
from benchmarks.table import Row, at_most, mean_interval
from memspace.geometry.geodesic import Geodesic, GeodesicSettings, geodesic, path_length
from memspace.geometry.matching import match
from memspace.geometry.network_flow import network_flow
from memspace.geometry.stacked import probe_of
from memspace.passes.linearise import FisherOperator
from memspace.passes.space import ParameterSpace
from memspace.progress import Silent
from memspace.task.builtin import BuildOptions, build
from memspace.task.builtin.train import fit
from memspace.task.recipe import Recipe
from memspace.task.task import Task

PART = "geodesics"
RATIO = 0.8
EARLY = 8  # the checkpoint of a run that its last one is compared with


@dataclass(frozen=True)
class Pair:
    """One pair: what was found, on the examples searched on and on others."""

    found: Geodesic
    test: tuple[float, float, float]  # lower bound, path found, straight line


def rows(arguments: argparse.Namespace) -> list[Row]:
    sets: dict[str, list[Pair]] = {"independent, matched": [], "independent, as they are": [], "one run": []}
    noisy: list[Pair] = []
    for seed in arguments.seeds:
        task = _task(arguments, seed)
        a, b = _trained(task), _trained(task, seed + 100)
        matching = match(task, a, b)
        sets["independent, matched"].append(_pair(arguments, task, a, matching.state))
        sets["independent, as they are"].append(_pair(arguments, task, a, b))
        assert task.run is not None
        states = task.run.states
        sets["one run"].append(_pair(arguments, task, states[EARLY], states[-1], states[EARLY:]))
        other = noisy_digits(arguments.data_root, seed, arguments.small)
        c, d = _trained(other), _trained(other, seed + 100)
        noisy.append(_pair(arguments, other, c, match(other, c, d).state))
    sets["independent, matched, 10% wrong labels"] = noisy
    out = []
    for name, pairs in sets.items():
        out += _rows(name, pairs, goal=name.startswith("independent, matched"))
    gain = [
        p.found.straight.value / q.found.straight.value
        for p, q in zip(sets["independent, as they are"], sets["independent, matched"], strict=True)
    ]
    out.append(_plain("straight line before over after matching", gain, "weight matching (Ainsworth et al. 2023)"))
    return out + _flow(arguments)


def _flow(arguments: argparse.Namespace) -> list[Row]:
    """A geodesic from a trained network's weights in a direction that predictions feel; F by products only."""
    torch.manual_seed(0)
    width = 32 if arguments.small else 256
    raw = noisy_digits(arguments.data_root, 0, arguments.small).train
    x, y = raw.batch(range(len(raw))).x, raw.labels()

    def make() -> nn.Module:
        return nn.Sequential(nn.Linear(64, width), nn.GELU(), nn.Linear(width, width), nn.GELU(), nn.Linear(width, 10))

    task = Task(model=fit(make, x, y, Recipe(10, 128, 0.2, 1e-3, optimiser="sgd"), seed=0).model, train=(x, y))
    size = ParameterSpace.of(task).size
    operator = FisherOperator(task, ParameterSpace.of(task))
    v = operator(torch.randn(size, dtype=torch.float64))  # F z: a random direction with the flat ones left out
    v = v / (v @ operator(v)).sqrt()
    began = time.perf_counter()
    found = network_flow(task, v, (0.0, 0.5), damping=1e-2, examples=32, tolerance=1e-3)
    seconds = time.perf_counter() - began
    each = found.products / found.solves
    turned = 1 - float(torch.cosine_similarity(found.velocities[0], found.velocities[-1], dim=0))
    detail = f"{size:,} parameters, γ = 0.01, {found.solves} solves of {each:.0f} products, {seconds:.0f} s; "
    felt = float(found.fisher_speeds[0] / found.speeds[0])
    detail += f"{felt:.0%} of the speed is Fisher's, 1 − cosine of first and last velocity {turned:.2g}"
    return [at_most(PART, "initial-value geodesic: relative change of the speed", [found.drift], 1e-3, detail)]


def _task(arguments: argparse.Namespace, seed: int) -> Task:
    options = BuildOptions(seed=seed, epochs=60, train_size=200) if arguments.small else BuildOptions(seed=seed)
    return build("digits", options, Silent())


def _trained(task: Task, seed: int | None = None) -> dict[str, Tensor]:
    model = task.model
    if seed is not None:
        assert task.refit is not None
        model = task.refit(torch.arange(len(task.train)), seed)
    return {k: v.detach().clone() for k, v in model.state_dict().items()}


def _pair(
    arguments: argparse.Namespace,
    task: Task,
    a: dict[str, Tensor],
    b: dict[str, Tensor],
    path: tuple[dict[str, Tensor], ...] = (),
) -> Pair:
    found = geodesic(task, a, b, path=path, settings=GeodesicSettings(128 if arguments.small else 512))
    assert task.test is not None
    other = probe_of(task, found.probe.space, torch.arange(len(task.test)), test=True)
    ends = found.points[[0, -1]]
    with torch.no_grad():
        lower = float(other.steps(ends).sqrt())
    return Pair(found, (lower, path_length(other, found.points).value, path_length(other, ends).value))


def _rows(name: str, pairs: list[Pair], goal: bool) -> list[Row]:
    found = [p.found for p in pairs]
    known = {"lower": [g.lower for g in found], "found": [g.length.value for g in found]}
    known["straight"] = [g.straight.value for g in found]
    given = [g.given.value for g in found if g.given is not None]
    lengths = ", ".join(f"{k} {_mean(v)}" for k, v in (known | ({"training path": given} if given else {})).items())
    ratio = [g.ratio for g in found]
    out = [
        at_most(PART, f"{name}: found over straight line", ratio, RATIO, lengths)
        if goal
        else _plain(f"{name}: found over straight line", ratio, lengths)
    ]
    broken = [float(not _chain(g)) for g in found]
    out.append(at_most(PART, f"{name}: pairs where lower ≤ found ≤ every known path fails", [sum(broken)], 0))
    out.append(
        _plain(
            f"{name}: gap, found over lower bound less 1",
            [g.gap for g in found],
            "; ".join(f"{g.status} from the {g.start}" for g in found),
        )
    )
    out.append(
        _plain(
            f"{name}: on test examples, found over straight line",
            [p.test[1] / p.test[2] for p in pairs],
            f"lower {_mean(p.test[0] for p in pairs)}, found {_mean(p.test[1] for p in pairs)}",
        )
    )
    seconds = f"{_mean(g.seconds for g in found)} s on one thread, {_mean(g.evaluations for g in found)} evaluations"
    out.append(_plain(f"{name}: search, in epochs of training data", [g.epochs for g in found], seconds))
    return out


def _chain(g: Geodesic) -> bool:
    known = [g.straight.value] + ([g.given.value] if g.given is not None else [])
    return g.lower <= g.length.value * (1 + 1e-9) and all(g.length.value <= k * (1 + 1e-9) for k in known)


def _mean(values: Iterable[float]) -> str:
    numbers = list(values)
    return f"{sum(numbers) / len(numbers):.3g}"


def _plain(quantity: str, values: list[float], detail: str = "") -> Row:
    mean, low, high = mean_interval(values)
    return Row(PART, quantity, "", mean, low, high, None, detail)
