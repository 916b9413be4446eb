"""Wrong labels: average precision, calibration, suggestions and cost, against cleanlab and other peers.

cleanlab is given what its documentation asks for: probabilities from 5-fold cross-validation of the same network
trained by the same recipe; of its scores the best on these data stands in the table. Costs are whole: what a method
needs beyond the trained network, trainings included; all in this process, one after another, in CPU seconds of all
threads together, into which other work on the machine does not enter.
"""

from __future__ import annotations

import argparse
import gc
import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from sklearn.metrics import average_precision_score
from torch import Tensor

from benchmarks.memory_workloads import WORKLOADS
from benchmarks.table import Row, at_least, at_most, mean_interval
from memspace.auditing.label_issues import label_issues
from memspace.passes.outputs import outputs
from memspace.task.builtin.train import fit
from memspace.task.task import Task

__all__ = ["calibration_error", "rows"]

BINS = 15


@dataclass(frozen=True)
class Judged:
    """A method's verdict: score (n,), higher is more suspicious; probability and suggestion where it has them."""

    score: np.ndarray
    probability: np.ndarray | None = None
    suggested: np.ndarray | None = None


def calibration_error(probability: np.ndarray, wrong: np.ndarray) -> float:
    """Expected calibration error: |mean probability − share that is wrong| over equal-width bins, by their size."""
    where = np.minimum((probability * BINS).astype(int), BINS - 1)
    parts = [where == k for k in range(BINS)]
    return float(sum(abs(probability[i].mean() - wrong[i].mean()) * i.mean() for i in parts if i.any()))


def ours(task: Task, seed: int) -> dict[str, Judged]:
    found = label_issues(task, reasons=50).table
    order = np.argsort(found["index"])
    p = np.asarray(found["p_wrong_label"])[order]
    return {"memspace": Judged(p, p, np.asarray(found["suggested_label"])[order])}


def cross_validated(task: Task, seed: int) -> np.ndarray:
    """Out-of-sample probabilities (n, C): five networks, each trained without its fifth."""
    assert task.training is not None
    whole = task.train.batch(range(len(task.train)))
    n = len(whole)
    order = torch.randperm(n, generator=torch.Generator().manual_seed(seed + 31))
    out: Tensor | None = None
    for k in range(5):
        test = order[k::5].sort().values
        keep = torch.ones(n, dtype=torch.bool)
        keep[test] = False
        at = keep.nonzero().flatten()
        model = fit(task.training.make, whole.x[at], whole.y[at], task.training.recipe, seed=k, record=False).model
        f, _ = outputs(Task(model, task.train), task.train, index=test)
        out = torch.zeros(n, f.shape[1]) if out is None else out
        out[test] = torch.softmax(f, -1)
    assert out is not None
    return out.numpy()


def cleanlab(task: Task, seed: int) -> dict[str, Judged]:
    from cleanlab.filter import find_label_issues
    from cleanlab.rank import get_label_quality_scores

    p, y = cross_validated(task, seed), task.train.labels().numpy()
    found = {}
    methods = [(m, a) for m in ("self_confidence", "normalized_margin") for a in (False, True)]
    for method, adjust in [*methods, ("confidence_weighted_entropy", False)]:
        quality = get_label_quality_scores(y, p, method=method, adjust_pred_probs=adjust)
        away = p.copy()
        away[np.arange(len(y)), y] = -1
        name = f"cleanlab {method}" + (" adjusted" if adjust else "")
        found[name] = Judged(1 - quality, 1 - quality if method == "self_confidence" else None, away.argmax(1))
    flagged = find_label_issues(y, p, filter_by="prune_by_noise_rate", n_jobs=1)
    quality = get_label_quality_scores(y, p)
    found["cleanlab find_label_issues, then self_confidence"] = Judged(1 - quality + flagged)
    return found


def loss(task: Task, seed: int) -> dict[str, Judged]:
    f, y = outputs(task, task.train)
    return {"training loss": Judged(torch.nn.functional.cross_entropy(f, y, reduction="none").numpy())}


def margin_area(task: Task, seed: int) -> dict[str, Judged]:
    """Area under the margin (Pleiss et al. 2020): the margin averaged over the epochs of a training."""
    assert task.training is not None
    whole = task.train.batch(range(len(task.train)))
    n, recipe = len(whole), task.training.recipe
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = task.training.make()
        optimiser = torch.optim.SGD(model.parameters(), recipe.rate, recipe.momentum, weight_decay=recipe.decay)
        total, step, area = recipe.steps(n), 0, torch.zeros(n)
        for _ in range(recipe.epochs):
            for at in torch.randperm(n).split(recipe.size(n)):
                for group in optimiser.param_groups:
                    group["lr"] = recipe.rate_at(step, total)
                f = model(whole.x[at])
                optimiser.zero_grad()
                torch.nn.functional.cross_entropy(f, whole.y[at]).backward()
                optimiser.step()
                own = f.detach().gather(1, whole.y[at, None])
                other = f.detach().scatter(1, whole.y[at, None], -torch.inf).amax(1)
                area[at] += own[:, 0] - other
                step += 1
    return {"area under the margin": Judged(-area.numpy() / recipe.epochs)}


def kronfluence(task: Task, seed: int) -> dict[str, Judged]:
    import tempfile

    from kronfluence.arguments import FactorArguments, ScoreArguments

    from benchmarks.peers.common import Whole
    from benchmarks.peers.kronfluence_items import analyzer_of

    whole = task.train.batch(range(len(task.train)))
    data = Whole(whole.x, whole.y)
    with tempfile.TemporaryDirectory() as folder:
        analyzer = analyzer_of(task.model, folder)
        options = FactorArguments(strategy="ekfac")
        analyzer.fit_all_factors("f", dataset=data, factor_args=options, per_device_batch_size=128)
        analyzer.compute_self_scores(
            "s",
            factors_name="f",
            train_dataset=data,
            per_device_train_batch_size=128,
            score_args=ScoreArguments(),
        )
        scores = analyzer.load_self_scores("s")
    assert scores is not None
    return {"kronfluence self-influence": Judged(scores["all_modules"].numpy())}


METHODS: tuple[Callable[[Task, int], dict[str, Judged]], ...] = (
    ours,
    cleanlab,
    kronfluence,
    margin_area,
    loss,
)


def measure(task: Task, seed: int) -> dict[str, dict[str, float]]:
    """Each method's figures on one task."""
    assert task.true_labels is not None
    truth, y = task.true_labels.numpy(), task.train.labels().numpy()
    wrong = truth != y
    found: dict[str, dict[str, float]] = {}
    for method in METHODS:
        gc.collect()
        start = time.process_time()
        verdicts = method(task, seed)
        seconds = time.process_time() - start
        for name, v in verdicts.items():
            found[name] = {"ap": float(average_precision_score(wrong, v.score)), "seconds": seconds}
            if v.probability is not None:
                found[name]["ece"] = calibration_error(v.probability, wrong)
            if v.suggested is not None:
                found[name]["suggested"] = float((v.suggested == truth)[wrong].mean())
    return found


def rows(arguments: argparse.Namespace) -> list[Row]:
    made: list[Row] = []
    for workload, make in WORKLOADS.items():
        if arguments.workload not in (None, workload):
            continue
        seeds = []
        for seed in arguments.seeds:
            seeds.append(measure(make(arguments.data_root, seed, arguments.small), seed))
            short = {k: {m: round(x, 4) for m, x in v.items()} for k, v in seeds[-1].items()}
            print(f"labels, {workload}, seed {seed}: {short}", flush=True)
        made += _rows(f"labels, {workload}", seeds)
    return made


def _rows(part: str, seeds: list[dict[str, dict[str, float]]]) -> list[Row]:
    def column(name: str, what: str) -> list[float]:
        return [s[name][what] for s in seeds]

    peers = [n for n in seeds[0] if n.startswith("cleanlab")]
    best = max(peers, key=lambda n: float(np.mean(column(n, "ap"))))
    own = column("memspace", "ap")

    def lead(over: str) -> list[float]:
        return [a - b for a, b in zip(own, column(over, "ap"), strict=True)]

    faster = [a / b for a, b in zip(column("memspace", "seconds"), column(best, "seconds"), strict=True)]
    made = [
        at_least(part, "average precision less cleanlab's best", lead(best), 0.0, f"paired by seed; {best}"),
        at_least(part, "average precision less kronfluence's", lead("kronfluence self-influence"), 0.0, "paired"),
        at_most(part, "expected calibration error", column("memspace", "ece"), 0.05, f"{BINS} bins"),
        at_most(part, "CPU seconds over cleanlab's", faster, 1.0, "refits and cross-validation included"),
    ]
    words = {
        "ap": "average precision",
        "ece": "calibration error",
        "suggested": "suggestion right",
        "seconds": "CPU seconds",
    }
    for name in seeds[0]:
        made += [
            Row(part, f"{name}: {word}", "", *mean_interval(column(name, what)), None)
            for what, word in words.items()
            if what in seeds[0][name]
        ]
    return made
