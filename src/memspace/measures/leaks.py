"""Test examples that are training examples: how many, and what the network does on the others.

A test loss measured on copies of training examples says how well those were stored, so this is reported first.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from memspace.measures.correct import by_example, correct, per_prediction
from memspace.measures.declaration import measure, provides, truth
from memspace.measures.repeats import LeakedExamples
from memspace.measures.values import TestOutputs, TrainingOutputs
from memspace.task.task import Task
from memspace.value import Absent, Value

__all__ = ["WithoutCopies", "accuracy_without_copies", "leaked_share", "loss_without_copies"]


@dataclass(frozen=True)
class WithoutCopies:
    """The test data without copies of training examples.

    Args:
        n: test examples.
        copies: how many of them are copies.
        f: outputs on the others.
        y: their labels.
        counted: predictions that count, by example.
    """

    n: int
    copies: int
    f: Tensor
    y: Tensor
    counted: Tensor


@provides()
def without_copies(task: Task, test: TestOutputs | None, leaked: LeakedExamples | None) -> WithoutCopies | Absent:
    """Remove copies of training examples from the test data."""
    if test is None or leaked is None or task.test is None:
        return Absent()
    copies = sorted(set(leaked.pairs.places("exact", "other_index")))
    fresh = torch.ones(len(test.f), dtype=torch.bool, device=test.f.device)
    fresh[task.test.places(torch.tensor(copies, dtype=torch.long))] = False
    f, y = test.f[fresh].double(), test.y[fresh]
    return WithoutCopies(len(test.f), len(copies), f, y, by_example(task.likelihood.weight(f, y)))


@measure(
    "duplicates.leaked_share",
    chapter="stored",
    unit="1",
    estimator="test examples whose input is a training example's, byte by byte; counted",
    better="smaller",
    shown="share",
)
def leaked_share(test: WithoutCopies) -> Value:
    """Share of the test examples that are copies of training examples."""
    return Value(test.copies / test.n, test.n)


@measure(
    "generalisation.test_accuracy_without_copies",
    chapter="stored",
    unit="1",
    estimator="test examples that are not in the training data",
    better="larger",
    shown="share",
)
@truth()
def accuracy_without_copies(task: Task, test: WithoutCopies) -> Value | None:
    """Share of the other test examples that it gets right."""
    if not test.copies or not len(test.f) or not task.likelihood.classifies:
        return None
    right = by_example(correct(task.likelihood, test.f, test.y)) / test.counted.clamp_min(1)
    return Value.share(right[test.counted > 0])


@measure(
    "generalisation.test_loss_without_copies",
    chapter="stored",
    unit="nats",
    estimator="test examples that are not in the training data",
    better="smaller",
)
@truth()
def loss_without_copies(task: Task, test: WithoutCopies, outputs: TrainingOutputs) -> Value | Absent | None:
    """Mean loss of a prediction on the other test examples."""
    if not test.copies:
        return None
    if not len(test.f):
        return Absent("every test example is a training example", "test on data the network has not seen")
    losses = per_prediction(by_example(task.likelihood.nll(test.f, test.y)), test.counted)
    return Value.mean(losses, per=outputs.per)
