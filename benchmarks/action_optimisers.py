"""Loss bought per action by optimiser, on digits: excess, inefficiency, speed; and the figure of the documentation."""

from __future__ import annotations

import argparse
from pathlib import Path

from benchmarks.action_workloads import OPTIMISERS, trained
from benchmarks.draw import Line, draw
from benchmarks.table import Row, mean_interval
from memspace.action.training import training_action
from memspace.progress import Silent

PART = "optimisers"
FIGURE = Path(__file__).resolve().parent / "out" / "action-optimisers.svg"


def rows(arguments: argparse.Namespace) -> list[Row]:
    out, lines = [], []
    steps, seeds = (32, range(1)) if arguments.small else (256, arguments.seeds)
    for name in OPTIMISERS:
        columns: dict[str, list[float]] = {}
        for seed in seeds:
            found = trained(name, seed, steps, every=8)
            action = training_action(found.task, progress=Silent(), probe=256, slope_probe=64, seed=seed)
            values = {m.name.removeprefix("action."): m.value for m in action.measurements}
            values |= {"test loss": found.test, "ms per step": 1e3 * found.seconds}
            values["steps to 0.05 nats"] = float("nan") if found.reached is None else float(found.reached)
            for key, value in values.items():
                columns.setdefault(key, []).append(value)
            if seed == 0:
                spent = [0.0]
                for a, b in zip(action.segments["excess"], action.segments["bought"], strict=True):
                    spent.append(spent[-1] + a + b)
                at = dict(zip(action.step, action.loss, strict=True))  # by checkpoint; stretches hold several
                ends = [action.segments["step_from"][0], *action.segments["step_to"]]
                lines.append(Line(name, spent, [at[step] for step in ends]))
        for key, unit in (
            ("loss_bought", "nats"),
            ("excess", "nats"),
            ("spent_over_bought", "action spent over loss bought"),
            ("length", "nats^½"),
            ("drift_length", "nats^½"),
            ("noise_share", "1"),
            ("inefficiency", "1"),
            ("steps to 0.05 nats", "steps"),
            ("test loss", "nats"),
            ("ms per step", "processor ms, one thread"),
        ):
            mean, low, high = mean_interval(columns[key])
            detail = f"{len(seeds)} seeds, {steps} steps"
            if missed := sum(v != v for v in columns[key]):
                detail += f"; not reached in {missed}"
            out.append(Row(PART, f"{name}: {key} ({unit})", "", mean, low, high, None, detail))
    FIGURE.parent.mkdir(parents=True, exist_ok=True)
    draw(
        FIGURE,
        "Loss against action spent",
        "action spent, ∫‖θ̇‖‖∇L‖ dt (nats)",
        "training loss (nats)",
        lines,
        (True, True),
    )
    return out
