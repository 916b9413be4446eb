"""Training that pays for action against the usual regularisers, at equal compute and equal tuning.

Every method gets the same processor time of one thread: its number of steps is that of plain training over the
measured cost of its step. Its settings, as many as every other method's, are judged by validation loss over the same
tuning seeds; the best is trained on fresh seeds, and measured on test examples that no choice has seen. Methods share,
seed by seed, the split, the wrong labels, the initialisation and the order of the batches.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch

from memspace.auditing.store import Store
from memspace.display import Columns, Shown
from memspace.errors import TaskError
from memspace.experiments.action_methods import METHODS, Method
from memspace.experiments.action_network import Examples
from memspace.experiments.action_settings import StudySettings
from memspace.experiments.action_training import Outcome, Shape, StudyTraining, measured_costs
from memspace.experiments.action_verdict import MethodComparison, chosen, compare, means
from memspace.experiments.action_work import StudyWork, append_line, read_trainings
from memspace.measurement import Measurement, Unmeasured
from memspace.progress import Progress, Silent

__all__ = ["BASELINE", "ActionStudy", "action_study"]

BASELINE = "weight decay"
TUNING = 10_000  # seeds of tuning begin here, far from those of the final trainings


@dataclass(frozen=True, repr=False)
class ActionStudy(Shown):
    """What a study found.

    Args:
        data: name of the data.
        chosen: method → (rate, strength).
        costs: of a step, plain training's being 1.
        steps: of each method.
        times: processor time of a final training over that of plain training: near 1, but for what a method does once
            at its start.
        edge: methods whose chosen strength is the least or greatest offered: a wider grid might serve them better.
        measurements: means over seeds.
        comparisons: with the baseline.
        unmeasured: methods that could not be trained, with the reason.
        outcomes: all final trainings.
        seconds: of processor time in training, all processes together.
    """

    data: str
    chosen: dict[str, tuple[float, float]]
    costs: dict[str, float]
    steps: dict[str, int]
    times: dict[str, float]
    edge: tuple[str, ...]
    measurements: tuple[Measurement, ...]
    comparisons: tuple[MethodComparison, ...]
    unmeasured: tuple[Unmeasured, ...]
    outcomes: dict[str, list[Outcome]]
    seconds: float

    def _title(self) -> str:
        return f"{self.data}: {len(self.outcomes)} methods in {self.seconds:.0f} s of training"

    def _tables(self) -> Mapping[str, Callable[[], Columns]]:
        return {"comparisons": self._rows}

    def _rows(self) -> Columns:
        """A row a method and outcome: the difference from the baseline, paired by seed, and the verdict."""
        return {
            "method": [c.method for c in self.comparisons],
            "outcome": [c.outcome for c in self.comparisons],
            "difference": [c.difference.value for c in self.comparisons],
            "low": [(c.difference.interval or (math.nan, math.nan))[0] for c in self.comparisons],
            "high": [(c.difference.interval or (math.nan, math.nan))[1] for c in self.comparisons],
            "verdict": [c.verdict for c in self.comparisons],
        }

    def measurement(self, method: str, outcome: str) -> Measurement:
        """Look up the mean over seeds of an outcome.

        Args:
            method: name of the method.
            outcome: name of the outcome.

        Returns:
            The measurement.

        Raises:
            KeyError: there is none.
        """
        for m in self.measurements:
            if m.name == f"{method}.{outcome}":
                return m
        raise KeyError(f"{method}.{outcome}")

    def to_dict(self) -> dict[str, Any]:
        """Give plain JSON types.

        Returns:
            All but the single trainings.
        """
        compared = [asdict(c) | {"difference": c.difference.to_dict()} for c in self.comparisons]
        return {
            "data": self.data,
            "baseline": BASELINE,
            "chosen": {m: {"rate": r, "strength": s} for m, (r, s) in self.chosen.items()},
            "cost_of_a_step": self.costs,
            "steps": self.steps,
            "time_of_a_training": self.times,
            "chosen_at_the_edge": list(self.edge),
            "measurements": [m.to_dict() for m in self.measurements],
            "comparisons": compared,
            "unmeasured": [u.to_dict() for u in self.unmeasured],
            "seconds": self.seconds,
        }


def action_study(
    examples: Examples,
    plan: StudySettings,
    methods: Sequence[Method] | None = None,
    *,
    store: Store | None = None,
    progress: Progress | None = None,
) -> ActionStudy:
    """Tune, train, measure and compare; with a store, finished trainings are not repeated.

    Args:
        examples: the data.
        plan: how much is trained, and on what.
        methods: plain training and the baseline among them (default: all of ``METHODS``).
        store: keeps finished trainings.
        progress: told of every training.

    Returns:
        Settings chosen, means, comparisons with the baseline.

    Raises:
        TaskError: the baseline is not among the methods, or methods do not have equally many settings.
    """
    progress = progress or Silent()
    methods = METHODS if methods is None else methods
    _check(methods)
    able, unmeasured = _able(examples, plan.shape, methods)
    done, costs = read_trainings(store)
    if any(m.name not in costs for m in able):
        reference = next(m for m in able if m.name == "plain")
        missing = [reference, *(m for m in able if m is not reference and m.name not in costs)]
        costs = measured_costs(examples, plan.shape, missing) | costs
        append_line(store, {"costs": costs})
    steps = {m.name: max(1, round(plan.steps / costs[m.name])) for m in able}
    seeds = range(TUNING, TUNING + plan.tuning)
    tuning = [
        StudyTraining(m.name, r, s, seed, steps[m.name], False) for m in able for r, s in m.settings for seed in seeds
    ]
    final_seeds = range(plan.first, plan.first + plan.seeds)
    handle = progress.start(f"{examples.name}: trainings", len(tuning) + plan.seeds * len(able))
    try:
        with StudyWork(examples, plan, able, store, done, lambda: progress.advance(handle)) as trainer:
            tuned = trainer.all(tuning)
            best = chosen(tuned)
            final = [
                StudyTraining(m.name, *best[m.name], seed, steps[m.name], True) for m in able for seed in final_seeds
            ]
            trained = trainer.all(final)
    finally:
        progress.finish(handle)
    outcomes: dict[str, list[Outcome]] = {m.name: [] for m in able}
    for o in trained:
        outcomes[o.job.method].append(o)
    for m in able:
        lost = [o for o in outcomes[m.name] if not o.values]
        if lost:
            reason = f"{len(lost)} of {plan.seeds} trainings diverged at the chosen setting"
            unmeasured.append(Unmeasured(m.name, reason, "offer smaller rates"))
            del outcomes[m.name]
    noise = examples.noise > 0
    seconds = {name: statistics.fmean(o.seconds for o in of) for name, of in outcomes.items()}
    return ActionStudy(
        examples.name,
        best,
        costs,
        steps,
        {name: s / seconds["plain"] for name, s in seconds.items()} if "plain" in seconds else {},
        tuple(m.name for m in able if len(m.strengths) > 1 and best[m.name][1] in (min(m.strengths), max(m.strengths))),
        tuple(means(outcomes, noise)),
        tuple(compare(outcomes, BASELINE, noise)) if BASELINE in outcomes else (),
        tuple(unmeasured),
        outcomes,
        sum(o.seconds for o in (*tuned, *trained)),
    )


def _check(methods: Sequence[Method]) -> None:
    names = [m.name for m in methods]
    counts = {len(m.settings) for m in methods}
    if not {"plain", BASELINE} <= set(names) or len(set(names)) < len(names) or len(counts) > 1:
        raise TaskError(
            f"a study needs plain training, {BASELINE} and equally many settings of every method",
            where="training study",
            remedy="give every method once, with as many rates × strengths as the others",
        )


def _able(examples: Examples, shape: Shape, methods: Sequence[Method]) -> tuple[list[Method], list[Unmeasured]]:
    """The methods that can be made here, and why the others can't."""
    able, absent = [], []
    for m in methods:
        rate, strength = m.settings[0]
        with torch.random.fork_rng(devices=[]):
            try:
                m.make(shape.network(examples), rate, strength).close()
            except TaskError as error:
                absent.append(Unmeasured(m.name, error.what, error.remedy))
                continue
        able.append(m)
    return able, absent
