"""Action along depth: a part of the action chapter, where the network has a chain of blocks of one shape."""

from __future__ import annotations

from memspace.action.control import ALONE, MAXIMALITY
from memspace.action.depth import CONTROL, Depth, depth_action
from memspace.auditing.results import Figure, Series
from memspace.errors import TaskError, UnsupportedLayerError
from memspace.measures.cost import Facts, Stage
from memspace.measures.declaration import provides
from memspace.measures.values import Budget
from memspace.task.task import Task
from memspace.value import Absent

__all__ = ["depth_figure", "depth_note"]

EXAMPLES = 64  # and read-outs without a fitted map, so that a network of many layers costs no more than a few passes


def _cost(facts: Facts) -> list[Stage]:
    """States, a product and a read-out a layer; the control, whose backward pass is taken block by block."""
    layers = facts.depth
    if not layers:
        return []
    n = facts.n
    probe, controlled = min(EXAMPLES, max(2, n // 2)), min(n, CONTROL * EXAMPLES)
    tried = min(MAXIMALITY, facts.batch(1), controlled)
    solved = controlled + min(ALONE, controlled) + tried
    return [
        Stage("depth", probe, 3 + 2 * layers, 0, 0, "action along depth"),
        Stage("depth as a control", solved, 1, 1, 0, "whether the layers steer optimally"),
    ]


@provides(cost=_cost)
def along_depth(task: Task, budget: Budget) -> Depth | Absent:
    """Measure along depth, where a chain of blocks is found."""
    try:
        return depth_action(task, examples=EXAMPLES, lens="logit", seed=budget.seed, progress=budget.progress)
    except (TaskError, UnsupportedLayerError):  # no two blocks of one form, or hidden states that are lost
        return Absent()


def depth_note(depth: Depth) -> str:
    """Say which blocks make the depth."""
    return (
        f"Along depth: blocks {depth.blocks[0]} to {depth.blocks[-1]}, {len(depth.blocks)} of them, on {EXAMPLES} "
        "examples at most; `memspace depth` measures on more and layer by layer."
    )


def depth_figure(depth: Depth) -> Figure:
    """Draw each block's share of the action along depth."""
    series = tuple(
        Series(name, list(depth.blocks), [m.value for m in depth.layers[row]], "bar")
        for row, name in (("share", "of the kinetic energy"), ("fisher_share", "in the Fisher metric of the outputs"))
        if depth.layers.get(row)
    )
    return Figure(
        "depth",
        "Where the hidden states move",
        "Each block's share of the action along depth: in feature space, and in the Fisher metric of the outputs.",
        "block",
        "share",
        series,
    )
