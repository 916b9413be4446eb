"""The metric that compares examples, and duplicate pairs: values of the chapter on what is stored."""

from __future__ import annotations

from typing import Any

from memspace.auditing.duplicates import METRIC_EXAMPLES, Whitening, find_duplicates, whitening
from memspace.measures.cost import Facts, Stage
from memspace.measures.declaration import provides, table
from memspace.measures.duplicates import FEWEST
from memspace.measures.repeats import ACROSS, WITHIN, LeakedExamples, Pairs, RepeatedExamples
from memspace.measures.values import Budget
from memspace.passes.space import ParameterSpace
from memspace.progress import Silent
from memspace.task.task import Task
from memspace.value import Absent

__all__ = ["duplicate_columns"]

PAIRS = 1e8  # compared one with another: a few seconds


def _compared(n: int, test: int) -> bool:
    """Whether the pairs are few enough to compute the kernel."""
    return n * min(n, test or n) <= PAIRS


def _crossed(facts: Facts) -> bool:
    return bool(facts.test) and facts.n * facts.test <= PAIRS and min(facts.n, facts.test) >= FEWEST


def _kernel_costs(facts: Facts) -> Stage | None:
    if not _compared(facts.n, facts.test):
        return None
    m = min(facts.n, METRIC_EXAMPLES)
    forwards, backwards = facts.read(1, facts.proofs(m, 1) / 2 if m < facts.n else 0)
    work = 2 * m * facts.rotation
    return Stage("kernel metric", m, 2 * forwards, 2 * backwards, 0, "whitening for duplicates", work=work)


@provides(cost=_kernel_costs)
def kernel_metric(task: Task, space: ParameterSpace, budget: Budget) -> Whitening:
    """Read the metric of the kernel that examples are compared by; nothing where there are too many pairs."""
    compared = _compared(len(task.train), 0 if task.test is None else len(task.test))
    return whitening(task, space, budget.seed, Silent()) if compared else Whitening({}, {})


def _within_costs(facts: Facts) -> Stage | None:
    """The gradients of the training examples: once within them, once against the test data."""
    times = int(facts.n**2 <= PAIRS and facts.n >= FEWEST) + int(_crossed(facts))
    if not times:
        return None
    forwards, backwards = facts.read(1)
    why = "duplicates within the training data"
    return Stage("kernel", facts.n, times * forwards, times * backwards, 0, why)


@provides(cost=_within_costs)
def repeated_examples(task: Task, space: ParameterSpace, kernel: Whitening, budget: Budget) -> RepeatedExamples:
    """Search for duplicate training examples."""
    return RepeatedExamples(find_duplicates(task, space, kernel, WITHIN, seed=budget.seed, most=PAIRS))


def _across_costs(facts: Facts) -> Stage | None:
    if not _crossed(facts):
        return None
    read = facts.read(1, facts.proofs(facts.test, 1))
    return Stage("kernel, test data", facts.test, *read, 0, "test examples seen in training")


@provides(cost=_across_costs)
def leaked_examples(task: Task, space: ParameterSpace, kernel: Whitening, budget: Budget) -> LeakedExamples | Absent:
    """Search for test examples that are training examples."""
    if task.test is None:
        return Absent()
    return LeakedExamples(find_duplicates(task, space, kernel, ACROSS, seed=budget.seed, most=PAIRS))


@table("duplicates")
def duplicate_columns(repeated: RepeatedExamples, leaked: LeakedExamples | None) -> dict[str, list[Any]]:
    """List all pairs, first those within the training data."""
    several: list[Pairs] = [repeated.pairs] if leaked is None else [repeated.pairs, leaked.pairs]
    columns: dict[str, list[Any]] = {"within": [p.within for p in several for _ in range(len(p))]}
    for name in repeated.pairs.table:
        columns[name] = [entry for p in several for entry in p.table[name]]
    return columns
