"""Examples: whose predictions differ most between two networks."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from memspace.auditing.chapter import ChapterDeclaration
from memspace.auditing.compare import NetworkComparison
from memspace.auditing.pictures import item
from memspace.auditing.results import Figure, Gallery, Series
from memspace.measures.declaration import measure, provides, table
from memspace.measures.workspace import Measured
from memspace.task.task import Task
from memspace.value import Value

__all__ = ["EXAMPLES", "Moved"]

SHOWN = 12  # examples drawn


@dataclass(frozen=True)
class Moved:
    """How far predictions move, example by example.

    Args:
        index: places in the training data, (n,).
        distance: of the two predictions, (n,) nats^½.
        travelled: along the path found, (n,) nats^½.
    """

    index: Tensor
    distance: Tensor
    travelled: Tensor


@provides()
def moved(found: NetworkComparison) -> Moved:
    """Measure how far each prediction moves."""
    g = found.geodesic
    with torch.no_grad():
        distance = g.probe.squared(g.points[[0, -1]])[0].sqrt().cpu()
    return Moved(g.probe.index, distance, g.length.squared.sqrt().sum(0).cpu())


@measure(
    "examples.top_tenth",
    chapter="examples",
    unit="1",
    estimator="share of the squared distance on the tenth of the examples that move most",
    shown="share",
)
def top_tenth(examples: Moved) -> Value:
    """Share of the squared distance that a tenth of the examples holds."""
    squared = examples.distance.sort(descending=True).values.square()
    top = squared[: max(1, len(squared) // 10)]
    return Value(float(top.sum() / squared.sum().clamp_min(1e-300)), len(squared))


@table("examples")
def examples_table(examples: Moved) -> dict[str, Any]:
    """List how far each example's prediction moves."""
    return {
        "index": examples.index.tolist(),
        "distance": examples.distance.tolist(),
        "travelled": examples.travelled.tolist(),
    }


def answer(measured: Measured) -> str:
    """Say how much of the distance a tenth of the examples holds."""
    return f"A tenth of the examples holds {measured['examples.top_tenth'].value:.0%} of the squared distance."


def moved_figure(examples: Moved) -> Figure:
    """Draw how far each prediction travels against how far it moves."""
    marks = [f"#{i}" for i in examples.index.tolist()]
    return Figure(
        "moved",
        "How much each prediction moves",
        "Distance between the two predictions, and how far each travels along the path found.",
        "distance of the two predictions, nats^½",
        "travelled along the path, nats^½",
        (Series("example", examples.distance.tolist(), examples.travelled.tolist(), "points", text=marks),),
    )


def moved_gallery(task: Task, found: NetworkComparison, examples: Moved) -> Gallery:
    """Show the examples whose predictions move most, and the classes they move between."""
    items = []
    for k in examples.distance.argsort(descending=True)[:SHOWN].tolist():
        caption = f"moved {float(examples.distance[k]):.3g}"
        items.append(item(task, task.train, int(examples.index[k]), caption, _change(task, found.outputs[:, k])))
    return Gallery(
        "moved",
        "Predictions that differ most",
        "Fisher–Rao distance of the two networks' predictions, nats^½; predicted classes where they differ.",
        tuple(items),
    )


def _change(task: Task, outputs: Tensor) -> str:
    """The two predicted classes of an example, outputs (2, C), where they differ; nothing for other outputs."""
    law = task.likelihood
    if not law.classifies or outputs.dim() != 2 or outputs.shape[-1] < 2:
        return ""
    first, second = (_named(task, int(law.predict(f.unsqueeze(0)))) for f in outputs)
    return f"{first} → {second}" if first != second else ""


def _named(task: Task, k: int) -> str:
    return task.class_names[k] if task.class_names is not None and k < len(task.class_names) else str(k)


EXAMPLES = ChapterDeclaration(
    id="examples",
    title="Examples",
    question="Whose predictions differ most?",
    answer=answer,
    measures=(top_tenth,),
    tables=(examples_table,),
    figures=(moved_figure,),
    galleries=(moved_gallery,),
)
