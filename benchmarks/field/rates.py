"""One training recorded at two rates: what the action chapter says must not move beyond its intervals."""

from __future__ import annotations

import math
from typing import Any

import torch

import memspace
from benchmarks.field.networks import LAWS, Network, loss_of
from benchmarks.field.truths import Draw

__all__ = ["rate_records"]

CHECKPOINTS = 24
MORE = 3


def rate_records(network: Network, draw: Draw, law: str, outputs: int, seed: int) -> list[dict[str, Any]]:
    """For every measurement of the action chapter: value, interval and reliability at both rates."""
    states, times, steps, epochs = _recorded(network, draw, law, outputs, seed)
    found = []
    chapters = []
    for every in (MORE, 1):
        at = sorted({*range(0, len(states), every), len(states) - 1})
        model = network.make(draw.x, outputs)
        model.load_state_dict(states[-1])
        run = memspace.Run(
            tuple(states[k] for k in at), tuple(times[k] for k in at), tuple(steps[k] for k in at), epochs
        )
        results = memspace.audit(model.eval(), (draw.x, draw.y), likelihood=LAWS[law](), run=run)
        chapters.append({m.name: m for m in results.chapter("action").measurements})
    for name in sorted(chapters[0].keys() & chapters[1].keys()):
        seldom, often = chapters[0][name], chapters[1][name]
        if seldom.interval is None or not math.isfinite(seldom.value) or not math.isfinite(often.value):
            continue
        found.append(
            {
                "measure": name,
                "optimiser": network.recipe.optimiser,
                "seldom": [seldom.value, *seldom.interval, seldom.reliable],
                "often": [often.value, *(often.interval or (often.value, often.value)), often.reliable],
            }
        )
    return found


def _recorded(
    network: Network, draw: Draw, law: str, outputs: int, seed: int
) -> tuple[list[dict[str, torch.Tensor]], list[float], list[int], float]:
    recipe, n = network.recipe, len(draw.x)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = network.make(draw.x, outputs).train()
        if recipe.optimiser == "sgd":
            optimiser: torch.optim.Optimizer = torch.optim.SGD(
                model.parameters(), recipe.rate, momentum=0.9, weight_decay=recipe.decay
            )
        else:
            optimiser = torch.optim.Adam(model.parameters(), recipe.rate, weight_decay=recipe.decay)
        marks = {round(recipe.steps * (k / (CHECKPOINTS * MORE)) ** 2) for k in range(CHECKPOINTS * MORE + 1)}
        states, times, steps = [], [], []
        step, moment = 0, 0.0
        size = min(recipe.batch, n)
        while step <= recipe.steps:
            for at in torch.randperm(n).split(size):
                if step in marks:
                    states.append({k: v.detach().clone() for k, v in model.state_dict().items()})
                    times.append(moment)
                    steps.append(step)
                if step == recipe.steps:
                    return states, times, steps, step * size / n
                optimiser.zero_grad()
                loss_of(law, model(draw.x[at]), draw.y[at]).backward()
                optimiser.step()
                step += 1
                moment += recipe.rate
    return states, times, steps, step * size / n
