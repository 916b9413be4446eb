"""The page on two networks: distance, which is better, barrier, layers, examples."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from memspace.auditing.chapters.barrier import BARRIER
from memspace.auditing.chapters.better import BETTER
from memspace.auditing.chapters.carried import LAYERS
from memspace.auditing.chapters.distance import DISTANCE
from memspace.auditing.chapters.moved import EXAMPLES
from memspace.auditing.compare import NetworkComparison, NetworkNames
from memspace.auditing.page import make_page
from memspace.auditing.results import Results
from memspace.measures.workspace import Workspace
from memspace.task.task import Task

__all__ = ["COMPARISON", "comparison_results"]

COMPARISON = (DISTANCE, BETTER, BARRIER, LAYERS, EXAMPLES)


def comparison_results(
    task: Task, found: NetworkComparison, names: tuple[str, str], settings: Mapping[str, Any]
) -> Results:
    """Put a comparison on a page.

    Args:
        task: whose model the networks are states of.
        found: the comparison.
        names: what the two states are called.
        settings: what reproduces it.

    Returns:
        the chapters, and a table of examples.
    """
    g = found.geodesic
    facts = {
        "model": type(task.model).__name__,
        "parameters": f"{g.probe.space.size:,}",
        "output law": task.likelihood.name,
        "training examples": f"{len(task.train):,}",
        "examples compared on": f"{g.probe.n:,}",
        "first network": names[0],
        "second network": names[1],
    }
    return make_page(
        f"{task.name}: {names[0]} and {names[1]}",
        COMPARISON,
        Workspace({Task: task, NetworkComparison: found, NetworkNames: NetworkNames(*names)}),
        facts=facts | dict(task.description),
        settings=settings,
        plan=f"string of {len(g.states)} networks from the {g.start}; lengths on {g.probe.n} training examples",
        costs={"shortest path": g.seconds},
    )
