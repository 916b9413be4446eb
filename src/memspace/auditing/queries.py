"""The examples whose predictions an audit explains, and the labels whose losses are meant."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from memspace.auditing.settings import AuditSettings
from memspace.measures.correct import by_example
from memspace.measures.values import TestOutputs, TrainingOutputs
from memspace.task.data import Data
from memspace.task.task import Task
from memspace.value import Absent

__all__ = ["QUERIES", "Queries", "explained", "pick_queries", "queries_of", "query_data"]

QUERIES = 12  # predictions explained, where none are asked for


def pick_queries(task: Task, settings: AuditSettings, f: Tensor, y: Tensor) -> Tensor:
    """Choose examples to explain: those asked for, else the worst mistakes and the least certain right answers.

    Args:
        task: its output law measures the loss.
        settings: may name the examples.
        f: (n, ..., C) outputs.
        y: labels.

    Returns:
        (Q,) positions.
    """
    if settings.queries is not None:
        return torch.tensor(settings.queries, dtype=torch.long)
    loss = by_example(task.likelihood.nll(f.double(), y))
    order = loss.argsort(descending=True)
    if not task.likelihood.classifies or y.dim() > 1:
        return order[:QUERIES].cpu()
    wrong = task.likelihood.hits(f, y) < 1
    mistakes = order[wrong[order]][: QUERIES * 2 // 3]
    hard = order[~wrong[order]][: QUERIES - len(mistakes)]
    return torch.cat([mistakes, hard]).cpu()


def explained(task: Task, f: Tensor, y: Tensor) -> Tensor:
    """Return the labels whose losses the influence on queries refers to: the predicted ones, where there are classes.

    Without classes, they are the labels themselves: a predicted mean has no loss to explain. Positions that do not
    count are unchanged.

    Args:
        task: its output law predicts.
        f: (Q, ..., C) outputs.
        y: labels.

    Returns:
        labels in the form of ``y``.
    """
    law = task.likelihood
    if not law.classifies:
        return y
    predicted = law.predict(f)
    if y.dim() > predicted.dim():  # labels are distributions over the classes
        return torch.nn.functional.one_hot(predicted, f.shape[-1]).to(y.dtype)
    predicted = predicted.to(y.dtype)
    counted = law.weight(f, y) > 0
    return torch.where(counted.reshape(*counted.shape, *[1] * (y.dim() - counted.dim())), predicted, y)


@dataclass(frozen=True)
class Queries:
    """Examples whose predictions are explained.

    Args:
        index: (Q,) positions in the test data; in the training data where there are no test data.
        data: the examples, with the labels whose losses are meant (see :func:`explained`).
        f: (Q, C) outputs.
        y: those labels.
    """

    index: Tensor
    data: Data
    f: Tensor
    y: Tensor


def queries_of(task: Task, settings: AuditSettings, training: TrainingOutputs, test: TestOutputs | Absent) -> Queries:
    """Choose the examples to explain: test examples, or training examples where there are no test data.

    Args:
        task: the network and its data.
        settings: of the audit; they may name the examples.
        training: outputs on the training data.
        test: outputs on the test data.

    Returns:
        the examples, with what is explained of them.
    """
    f, y = (training.f, training.y) if isinstance(test, Absent) else (test.f, test.y)
    index = pick_queries(task, settings, f, y)
    labels = explained(task, f[index], y[index])
    data = Data((query_data(task).batch(index).x, labels.cpu()))
    return Queries(index, data, f[index], labels)


def query_data(task: Task) -> Data:
    """Return the data that queries come from.

    Args:
        task: the network and its data.

    Returns:
        the test data, or else the training data.
    """
    return task.test if task.test is not None else task.train
