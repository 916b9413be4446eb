"""Natural-gradient flow: identity and excess at their orders; excess ≥ 0 for all optimisers; length without noise."""

from __future__ import annotations

import argparse
import math

import torch
from torch import nn

from benchmarks.action_workloads import OPTIMISERS, trained
from benchmarks.table import Row, at_most
from memspace.action.natural import METHODS, natural_gradient_flow
from memspace.action.training import TrainingAction, training_action
from memspace.progress import Silent
from memspace.task.likelihood import Bernoulli
from memspace.task.task import Run, Task

PART = "excess"
HALVINGS = (32, 64, 128)  # at 16 steps two errors of opposite sign still cancel in part
RATES = (1, 2, 4, 8, 16)


def rows(arguments: argparse.Namespace) -> list[Row]:
    return _orders() + _signs(arguments) + _rates(arguments)


def _logistic() -> Task:
    g = torch.Generator().manual_seed(0)
    x = torch.randn(50, 3, generator=g, dtype=torch.float64)
    y = (torch.rand(50, 1, generator=g) < torch.sigmoid(2 * x[:, :1])).double()
    model = nn.Linear(3, 1).double()
    for p in model.parameters():
        nn.init.zeros_(p)
    return Task(model=model, train=(x, y), likelihood=Bernoulli())


def _perceptron() -> Task:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 3)).double()
    return Task(model=model, train=(torch.randn(24, 4, dtype=torch.float64), torch.randint(0, 3, (24,))))


def _orders() -> list[Row]:
    out = []
    for name, task, damping in (
        ("logistic regression", _logistic(), 0.0),
        ("4-8-3 network, λ = 0.01", _perceptron(), 0.01),
    ):
        for method, order in METHODS.items():
            flows = [natural_gradient_flow(task, 1.0, s, damping=damping, method=method) for s in HALVINGS]
            bought = flows[-1].bought
            for what, errors, goal in (
                ("∫‖θ̇‖² dt less the loss bought", [f.spent.value - f.bought for f in flows], order),
                ("excess", [f.excess.value for f in flows], 2),
            ):
                found = math.log2(abs(errors[-2] / errors[-1]))
                detail = f"{', '.join(f'{e:.1e}' for e in errors)} nats at {HALVINGS} steps; {bought:.4f} bought"
                met = abs(found - goal) <= 0.2
                out.append(
                    Row(PART, f"{name}, {method}: order of {what}", f"{goal} ± 0.2", found, None, None, met, detail)
                )
    return out


def _measured(task: Task, seed: int) -> TrainingAction:
    return training_action(task, progress=Silent(), probe=256, slope_probe=48, seed=seed)


def _signs(arguments: argparse.Namespace) -> list[Row]:
    """How far below zero, beyond its stated numerical error, the excess of any run or segment lies."""
    out = []
    steps, seeds = (48, range(1)) if arguments.small else (240, arguments.seeds)
    for name in OPTIMISERS:
        whole, parts, values = [], [], []
        for seed in seeds:
            action = _measured(trained(name, seed, steps, every=8).task, seed)
            excess = next(m for m in action.measurements if m.name == "action.excess")
            errors = action.segments["error"]
            values.append(excess.value)
            whole.append(max(0.0, -excess.value - sum(errors)))
            below = [max(0.0, -v - e) for v, e in zip(action.segments["excess"], errors, strict=True)]
            parts.append(max(below) / excess.value if excess.value > 0 else max(below))
        detail = f"excess {', '.join(f'{v:.3g}' for v in values)} nats"
        out.append(at_most(PART, f"{name}: excess below zero beyond its error, nats", [max(whole)], 0, detail))
        out.append(at_most(PART, f"{name}: the same, worst segment over the excess", [max(parts)], 0.0))
    return out


def _rates(arguments: argparse.Namespace) -> list[Row]:
    """The same run recorded at several rates: how far the lengths spread, as they are and without noise."""
    out = []
    steps, seeds = (128, range(1)) if arguments.small else (1024, arguments.seeds)
    for name in ("SGD", "SGD, momentum", "Adam"):
        spreads, told = [], []
        for seed in seeds:
            spread, detail = _spread(name, seed, steps)
            spreads.append(spread)
            told.append(f"seed {seed}: {detail}")
        detail = f"nats^½ every {RATES} steps; " + "; ".join(told)
        out.append(at_most(PART, f"{name}: spread of the drift's length over recording rates", spreads, 0.1, detail))
    return out


def _spread(name: str, seed: int, steps: int) -> tuple[float, str]:
    """(greatest less least of the drift's lengths over the greatest, the figures)."""
    plain, drift, shares = [], [], []
    recorded = trained(name, seed, steps, every=1, batch=16)
    whole = recorded.task.run
    assert whole is not None
    for every in RATES:
        run = Run(whole.states[::every], whole.time[::every], whole.step[::every])
        task = Task(model=recorded.task.model, train=recorded.task.train, run=run)
        action = training_action(task, progress=Silent(), probe=128, slope_probe=0)
        found = {m.name: m for m in action.measurements}
        plain.append(found["action.length"].value)
        drift.append(found["action.drift_length"].value)
        shares.append(found["action.noise_share"].value)
    lengths = [", ".join(f"{v:.2f}" for v in values) for values in (drift, plain)]
    noise = ", ".join(f"{v:.0%}" for v in shares)
    apart = (max(drift) - min(drift)) / max(drift) if max(drift) > 0 else 0.0  # all 0 where noise hides everything
    return apart, f"{lengths[0]}; as recorded {lengths[1]}; noise {noise}"
