"""The main job against its goals: ``python -m benchmarks.main_job [--check] [--only NAME] [--data-root DIR]``.

Parts: ``digits`` (wrong labels, leave-one-out, weight noise over seeds), ``fashion`` (60,000 images: time in training
epochs and peak memory), ``command`` (the whole command from a shell), ``tests`` (time and coverage).
"""

from __future__ import annotations

import argparse
import os
import re
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch

from benchmarks.table import Row, at_least, at_most, mean_interval, show, write
from memspace.auditing.audit import audit_task
from memspace.auditing.plan import AuditSettings
from memspace.auditing.results import Results
from memspace.progress import Silent
from memspace.task.builtin import BuildOptions, build
from memspace.task.task import Task

HERE = Path(__file__).resolve().parent
SEEDS = (0, 1, 2, 3, 4)


def _value(results: Results, name: str) -> float:
    return results.measurement(name).value


def digits(arguments: argparse.Namespace) -> list[Row]:
    columns: dict[str, list[float]] = {}
    for seed in SEEDS:
        with tempfile.TemporaryDirectory() as cache:
            options = BuildOptions(seed=seed, label_noise=0.1, cache=Path(cache))
            task = build("digits", options, Silent())
        results = audit_task(task, AuditSettings(seed=seed))
        curve = next(f for f in results.chapter("robustness").figures if f.id == "weight-noise")
        predicted, measured = curve.series[0].y, curve.series[1].y
        small = [abs(m / p - 1) for p, m in zip(predicted, measured, strict=True) if p <= 0.005]
        error = _value(results, "generalisation.loo_relative_error")
        found = {
            "ap": _value(results, "labels.average_precision.p_wrong_label"),
            "ap_loss": _value(results, "labels.average_precision.training_loss"),
            "ap_self": _value(results, "labels.average_precision.self_influence"),
            "suggested": _value(results, "labels.suggestion_accuracy"),
            "loo": abs(error),
            "kl": max(small),
            "seconds": results.costs["total"],
            "refits": results.costs["held-out refits"],
            "noise": _value(results, "labels.noise"),
        }
        try:
            found["limit"] = _value(results, "robustness.second_order_limit")
        except KeyError:
            found["limit"] = float("nan")
        print(f"digits seed {seed}: " + ", ".join(f"{k} {v:.3g}" for k, v in found.items()), flush=True)
        for k, v in found.items():
            columns.setdefault(k, []).append(v)
    better = [a - b for a, b in zip(columns["ap"], columns["ap_loss"], strict=True)]
    close = sum(x <= 0.35 for x in columns["loo"])
    mean, low, high = mean_interval(columns["loo"])
    part = "digits"
    each = ", ".join(f"{x:.2f}" for x in columns["loo"])
    return [
        at_least(part, "average precision of wrong labels (p_wrong_label)", columns["ap"], 0.94),
        at_least(part, "the same less that of training loss", better, 0.0, "paired by seed"),
        Row(part, "average precision by self-influence", "", *mean_interval(columns["ap_self"]), None),
        at_least(part, "suggested label right, of truly wrong labels", columns["suggested"], 0.85),
        Row(part, "seeds with leave-one-out within 35% of test loss", "≥ 4", close, None, None, close >= 4, each),
        Row(part, "relative error of the leave-one-out estimate", "", mean, low, high, None),
        at_most(part, "largest |measured/predicted KL − 1| up to 0.005 nats", [max(columns["kl"])], 0.10, "worst seed"),
        Row(part, "KL at which second order is 10% off (nats)", "", *mean_interval(columns["limit"]), None),
        Row(part, "estimated share of wrong labels (truth 0.10)", "", *mean_interval(columns["noise"]), None),
        Row(part, "seconds per audit", "", *mean_interval(columns["seconds"]), None),
        Row(part, "of which held-out refits", "", *mean_interval(columns["refits"]), None),
    ]


def epoch_seconds(task: Task, batch: int = 256) -> float:
    """One training epoch, forward and backward at the given batch, no optimiser step."""
    model = task.model
    start = time.perf_counter()
    for part in task.train.batches(batch):
        f = model(part.x)
        loss = torch.nn.functional.cross_entropy(f, part.y)
        torch.autograd.grad(loss, list(model.parameters()))
    return time.perf_counter() - start


def fashion(arguments: argparse.Namespace) -> list[Row]:
    options = BuildOptions(seed=0, data_root=arguments.data_root)
    task = build("fashion-mnist", options, Silent())
    epoch_seconds(task)  # warm-up
    epochs = [epoch_seconds(task)]
    start = time.perf_counter()
    results = audit_task(task, AuditSettings())
    seconds = time.perf_counter() - start
    epochs.append(epoch_seconds(task))
    unit = sum(epochs) / len(epochs)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    part = "fashion"
    rows = [
        at_least(part, "parameters", [float(sum(p.numel() for p in task.model.parameters()))], 100_000),
        at_least(part, "test accuracy", [_value(results, "generalisation.test_accuracy")], 0.90),
        at_most(part, "audit, in training epochs", [seconds / unit], 30, f"{seconds:.0f} s; an epoch {unit:.1f} s"),
        at_most(part, "peak memory (GiB)", [peak], 6.0, "whole process, data and training included"),
        Row(
            part,
            "leave-one-out relative error",
            "",
            _value(results, "generalisation.loo_relative_error"),
            None,
            None,
            None,
        ),
    ]
    for name, spent in results.costs.items():
        if "memory" not in name and name != "total":
            rows.append(Row(part, f"  {name}, epochs", "", spent / unit, None, None, None, f"{spent:.0f} s"))
    return rows


def command(arguments: argparse.Namespace) -> list[Row]:
    seconds = []
    for _ in range(3):
        with tempfile.TemporaryDirectory() as folder:
            environment = os.environ | {"MEMSPACE_CACHE": str(Path(folder) / "cache")}
            start = time.perf_counter()
            line = [sys.executable, "-m", "memspace", "audit", "digits", "--quiet", "--out", f"{folder}/run"]
            subprocess.run(line, check=True, env=environment)
            seconds.append(time.perf_counter() - start)
    return [at_most("command", "memspace audit digits, training included (s)", seconds, 90)]


def tests(arguments: argparse.Namespace) -> list[Row]:
    start = time.perf_counter()
    line = [sys.executable, "-m", "pytest", "-q", "-n", "auto", "--cov=memspace", "--cov-report=term"]
    done = subprocess.run(line, capture_output=True, text=True, cwd=HERE.parent, check=False)
    minutes = (time.perf_counter() - start) / 60
    found = re.search(r"^TOTAL.*?(\d+)%", done.stdout, re.MULTILINE)
    covered = float(found[1]) if found else 0.0
    return [
        at_most("tests", "minutes", [minutes], 15),
        at_least("tests", "line coverage (%)", [covered], 90),
        Row("tests", "exit status", "0", done.returncode, None, None, done.returncode == 0),
    ]


PARTS: dict[str, Callable[[argparse.Namespace], list[Row]]] = {
    "digits": digits,
    "fashion": fashion,
    "command": command,
    "tests": tests,
}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="exit 1 where a goal is missed")
    parser.add_argument("--only", choices=PARTS, help="run one part")
    parser.add_argument("--data-root", type=Path, default=HERE.parent.parent / "shared" / "data")
    parser.add_argument("--json", type=Path, default=HERE / "out" / "main_job.json")
    arguments = parser.parse_args()
    rows: list[Row] = []
    for name, part in PARTS.items():
        if arguments.only in (None, name):
            rows += part(arguments)
    show(rows)
    write(rows, arguments.json)
    missed = [r for r in rows if r.met is False]
    print(f"{len(missed)} goals missed" if missed else "every goal met")
    return int(arguments.check and bool(missed))


if __name__ == "__main__":
    sys.exit(main())
