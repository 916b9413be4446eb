"""Leave-one-out without retraining, against networks really trained without the example.

Truth: of each chosen example, the rise of its own loss when a network is trained with its weight at zero and with the
same seed and batches, mean over seeds. An example's effect exceeds the seeds' noise where a t-test over the seeds
rejects "no effect" at 5%. Fashion-MNIST's thousand trainings one by one are done only with ``--workload``.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch
from scipy.stats import spearmanr, ttest_1samp

from benchmarks.memory_workloads import WORKLOADS
from benchmarks.table import Row, at_least, at_most, mean_interval
from memspace.auditing.leave_one_out import LeaveOneOut, leave_one_out
from memspace.auditing.plan import AuditSettings
from memspace.measures.calibration import calibration_error
from memspace.passes.outputs import outputs
from memspace.task.task import Task
from memspace.training.many import train_many

__all__ = ["rows"]

EXAMPLES, TRAININGS, LEVEL = 200, 5, 0.05


def chosen(found: LeaveOneOut, count: int) -> torch.Tensor:
    """Examples spread evenly over the ranks of the predicted rise: no bin of effects is left out."""
    order = (found.loo_loss - found.loss).argsort()
    return order[torch.linspace(0, len(order) - 1, count).round().long()].sort().values


def truth(task: Task, examples: torch.Tensor, trainings: int) -> np.ndarray:
    """(trainings, examples) rise of each example's own loss, nats."""
    assert task.training is not None
    whole = task.train.batch(range(len(task.train)))
    weights = torch.ones(len(examples) + 1, len(whole))
    weights[torch.arange(len(examples)), examples] = 0.0
    rises = []
    for seed in range(trainings):
        made = train_many(
            task.training, whole.x, whole.y, task.likelihood, seeds=[seed + 100] * len(weights), weights=weights
        )
        f = made.outputs(whole.x[examples])  # (M, examples, C)
        own = torch.arange(len(examples))
        without, with_it = f[own, own], f[-1]
        y = whole.y[examples]
        rises.append((task.likelihood.nll(without.double(), y) - task.likelihood.nll(with_it.double(), y)).numpy())
    return np.stack(rises)


def aggregate(task: Task, found: LeaveOneOut) -> dict[str, float]:
    """Estimates made without test data, and what the test data say."""
    assert task.test is not None
    f, y = outputs(task, task.test)
    measured = float(task.likelihood.nll(f.double(), y).mean())
    calibration = calibration_error("test", f, y, "test").value
    return {
        "estimate": found.test_loss.value,
        "test loss": measured,
        "relative": abs(found.test_loss.value / measured - 1),
        "ece estimate": getattr(found.calibration, "value", float("nan")),
        "ece": calibration,
    }


def per_example(task: Task, found: LeaveOneOut, small: bool) -> dict[str, float]:
    examples = chosen(found, 20 if small else EXAMPLES)
    measured = truth(task, examples, 2 if small else TRAININGS)
    predicted = (found.loo_loss - found.loss)[examples].numpy()
    clear = ttest_1samp(measured, 0.0).pvalue < LEVEL
    mean = measured.mean(0)
    half = len(measured) // 2
    assert task.true_labels is not None
    return {
        "rank": float(spearmanr(predicted[clear], mean[clear])[0]),
        "rank all": float(spearmanr(predicted, mean)[0]),
        "clear": float(clear.mean()),
        "ceiling": float(spearmanr(measured[:half].mean(0)[clear], measured[half:].mean(0)[clear])[0]),
        "slope": float(np.median(predicted[clear] / mean[clear])),
    }


def rows(arguments: argparse.Namespace) -> list[Row]:
    made: list[Row] = []
    for workload in WORKLOADS:
        if arguments.workload not in (None, workload):
            continue
        single = workload == "digits" or arguments.workload == workload or arguments.small
        made += _rows(workload, arguments.data_root, arguments.seeds, arguments.small, single)
    return made


def _rows(workload: str, root: Path, seeds: range, small: bool, single: bool) -> list[Row]:
    part = f"loo, {workload}"
    each: list[dict[str, float]] = []
    for seed in seeds:
        task = WORKLOADS[workload](root, seed, small)
        found = leave_one_out(task, settings=AuditSettings(seed=seed), folds=5)
        figures = aggregate(task, found)
        if single and (seed == seeds[0] or workload == "digits"):
            figures |= per_example(task, found, small)
        each.append(figures)
        print(f"{part}, seed {seed}: " + ", ".join(f"{k} {v:.4g}" for k, v in figures.items()), flush=True)

    def column(name: str) -> list[float]:
        return [e[name] for e in each if name in e]

    made = []
    if column("rank"):
        made += [
            at_least(part, "Spearman with retraining, clear effects", column("rank"), 0.8, f"t-test at {LEVEL:g}"),
            Row(part, "Spearman with retraining, all", "", *mean_interval(column("rank all")), None),
            Row(
                part, "Spearman of two halves of the seeds, clear effects", "", *mean_interval(column("ceiling")), None
            ),
            Row(part, "share of clear effects", "", *mean_interval(column("clear")), None),
            Row(part, "predicted over measured rise, median", "", *mean_interval(column("slope")), None),
        ]
    relative = column("relative")
    made.append(at_most(part, "|estimate of test loss / measured − 1|", relative, 0.15))
    words = {"estimate": "estimate of test loss", "test loss": "test loss", "ece": "calibration error, test"}
    words["ece estimate"] = "calibration error, estimated"
    return made + [Row(part, word, "", *mean_interval(column(key)), None) for key, word in words.items()]
