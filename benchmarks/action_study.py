"""Training that pays for action against tuned weight decay, at equal compute: digits, wrong labels, Fashion-MNIST."""

from __future__ import annotations

import argparse
from dataclasses import dataclass

from benchmarks.table import Row, at_least, at_most
from memspace.experiments.action_methods import METHODS
from memspace.experiments.action_network import Examples, examples_of
from memspace.experiments.action_settings import StudySettings
from memspace.experiments.action_study import BASELINE, ActionStudy, action_study
from memspace.experiments.action_verdict import SHOWN
from memspace.progress import Silent
from memspace.task.builtin import BuildOptions, build

PART = "study"
NATURAL = "natural gradient"
SEEDS = 10  # the fewest at which a difference is stated


@dataclass(frozen=True)
class Workload:
    """A task, what is drawn from it, and the steps of plain training."""

    name: str
    task: str
    noise: float
    train: int | None
    valid: int | None
    test: int | None
    steps: int


WORKLOADS = (
    Workload("digits", "digits", 0.0, None, None, None, 1000),
    Workload("digits, 20% wrong labels", "digits", 0.2, None, None, None, 1000),
    Workload("Fashion-MNIST, 4,000 images", "fashion-mnist", 0.0, 4000, 1000, 2000, 1600),
)


def rows(arguments: argparse.Namespace) -> list[Row]:
    """Every difference with its interval and verdict; goals only where the design itself can fail."""
    out: list[Row] = []
    for w in WORKLOADS:
        if arguments.workload not in (None, w.task):
            continue
        out += _rows(w, _study(w, arguments))
    return out


def _study(w: Workload, arguments: argparse.Namespace) -> ActionStudy:
    task = build(w.task, BuildOptions(data_root=arguments.data_root, train_network=False), Silent())
    small = arguments.small
    examples: Examples = examples_of(
        task,
        noise=w.noise,
        train=200 if small else w.train,
        valid=50 if small else w.valid,
        test=100 if small else w.test,
    )
    plan = StudySettings(20, 2, 1) if small else StudySettings(w.steps, max(SEEDS, len(arguments.seeds)), 2, workers=2)
    return action_study(examples, plan)


def _rows(w: Workload, study: ActionStudy) -> list[Row]:
    others = {m: t for m, t in study.times.items() if m != NATURAL}
    worst = max(others, key=lambda m: others[m])
    detail = f"{worst}; {study.seconds:.0f} s of training in all"
    what = f"{w.name}: time of a training over plain training's"
    out = [at_most(PART, f"{what}, greatest of the methods on Adam", [others[worst]], 1.25, detail)]
    if NATURAL in study.times:  # its start, which a mean step does not hold, weighs more the shorter the training
        cost = f"a step costs {study.costs[NATURAL]:g}; the rest is its start"
        out.append(Row(PART, f"{what}, {NATURAL}", "", study.times[NATURAL], None, None, None, cost))
    if w.noise:
        known = [m for m in study.measurements if m.name.endswith(".memorised_matched")]
        target = known[0].estimator if known else ""
        out.append(
            at_least(
                PART, f"{w.name}: methods with memorisation at equal clean accuracy", [len(known)], len(METHODS), target
            )
        )
    for c in study.comparisons:
        if c.outcome not in SHOWN:
            continue
        low, high = c.difference.interval or (None, None)
        rate, strength = study.chosen[c.method]
        base = study.measurement(BASELINE, c.outcome).value
        told = f"{c.verdict}{', for all methods together too' if c.strict else ''}; {BASELINE} {base:.3g}"
        told += f"; rate {rate:g}, strength {strength:g}, {study.steps[c.method]:,} steps"
        quantity = f"{w.name}: {c.method} less {BASELINE}, {c.outcome.replace('_', ' ')}"
        out.append(Row(PART, quantity, "", c.difference.value, low, high, None, told))
    return out
