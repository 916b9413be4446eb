"""Which training examples a prediction rests on: a part of the chapter on what is stored."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from memspace.auditing.pictures import class_name, item
from memspace.auditing.results import Gallery
from memspace.measures.declaration import table
from memspace.measures.memory import InfluenceDoubt
from memspace.measures.values import QueryInfluence, TestOutputs, TrainingOutputs
from memspace.task.data import Data
from memspace.task.task import Task

__all__ = ["explained_predictions", "influence_columns"]

LISTED = 10  # training examples at either end of a query's scores, in the table
SHOWN, SHOWN_QUERIES = 5, 6  # likewise in a gallery, and how many queries get one


@table("influence", {"influence": "nats"})
def influence_columns(task: Task, influence: QueryInfluence) -> dict[str, list[Any]]:
    """List the training examples that matter most to each query; negative ranks count from the other end."""
    data = _asked(task)
    columns: dict[str, list[Any]] = {"query": [], "train_index": [], "rank": [], "influence": []}
    for query, scores in zip(influence.queries, influence.scores, strict=True):
        for rank, i in enumerate(_ends(scores, LISTED)):
            columns["query"].append(int(data.numbers(query)))
            columns["train_index"].append(int(task.train.numbers(torch.tensor(i))))
            columns["rank"].append(rank + 1 if rank < LISTED else LISTED - 1 - rank)
            columns["influence"].append(float(scores[i]))
    return columns


def explained_predictions(
    task: Task,
    outputs: TrainingOutputs,
    influence: QueryInfluence,
    doubt: InfluenceDoubt,
    test: TestOutputs | None,
) -> list[Gallery]:
    """Show who supports the predictions for some queries, and who opposes them."""
    data, law = _asked(task), task.likelihood
    f, y = (outputs.f, outputs.y) if test is None else (test.f, test.y)
    caption = _caption(law.classifies, doubt.reason)
    galleries = []
    for q, scores in list(zip(influence.queries.tolist(), influence.scores, strict=True))[:SHOWN_QUERIES]:
        about = ""
        if outputs.classes:
            predicted = class_name(task, law.predict(f[q : q + 1])[0])
            about = f"label {class_name(task, y[q])}, predicted {predicted}"
        items = []
        for i in _ends(scores, SHOWN):
            score = float(scores[i])
            label = f", label {class_name(task, outputs.y[i])}" if outputs.classes else ""
            items.append(item(task, task.train, i, f"{score:+.2g} nats{label}", "supports" if score > 0 else "opposes"))
        title = f"Why this prediction? Example {q}"
        galleries.append(Gallery(f"query-{q}", title, caption, tuple(items), item(task, data, q, about)))
    return galleries


def _asked(task: Task) -> Data:
    """The data that queries come from."""
    return task.train if task.test is None else task.test


def _ends(scores: Tensor, count: int) -> list[int]:
    """Examples of the highest scores, then those of the lowest."""
    order = scores.argsort(descending=True)
    return [*order[:count].tolist(), *order.flip(0)[:count].tolist()]


def _caption(classifies: bool, doubt: str) -> str:
    effect = (
        "the network would be less sure (supports) or surer (opposes) of what it predicts."
        if classifies
        else "this example's loss would rise (supports) or fall (opposes)."
    )
    caption = f"Training examples without which {effect}"
    return f"{caption} Not reliable in size: {doubt}." if doubt else caption
