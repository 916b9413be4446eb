"""Action along depth, joined to the action chapter where the network has a chain of blocks of one shape."""

from __future__ import annotations

from dataclasses import replace

from memspace.action.control import ALONE, MAXIMALITY
from memspace.action.depth import CONTROL, Depth, depth_action
from memspace.auditing.results import Chapter, Figure, Series
from memspace.errors import TaskError, UnsupportedLayerError
from memspace.measures.cost import Facts, Stage
from memspace.progress import Progress
from memspace.task.task import Task

__all__ = ["depth_costs", "with_depth"]

EXAMPLES = 64  # and read-outs without a fitted map, so that a network of many layers costs no more than a few passes
SUMMARY = (
    "depth.ratio",
    "depth.pace",
    "depth.bend",
    "depth.fisher_action",
    "depth.prediction_length",
    "depth.prediction_inefficiency",
    "depth.stationarity",
    "depth.hamiltonian_variation",
)


def with_depth(chapter: Chapter, task: Task, seed: int, progress: Progress) -> Chapter:
    """The chapter with what was measured along depth; as it was, where there is no chain of blocks to be found."""
    try:
        found = depth_action(task, examples=EXAMPLES, lens="logit", seed=seed, progress=progress)
    except (TaskError, UnsupportedLayerError):  # no two blocks of one form, or hidden states that are lost
        return chapter
    measurements = tuple(m for m in found.measurements if m.name in SUMMARY)
    note = f"Along depth: blocks {found.blocks[0]} to {found.blocks[-1]}, {len(found.blocks)} of them, on {EXAMPLES} examples at most; `memspace depth` measures on more and layer by layer."
    return replace(
        chapter,
        measurements=(*chapter.measurements, *measurements),
        unmeasured=(*chapter.unmeasured, *found.unmeasured),
        figures=(*chapter.figures, _figure(found)),
        notes=(*chapter.notes, note),
    )


def _figure(found: Depth) -> Figure:
    series = tuple(
        Series(name, list(found.blocks), [m.value for m in found.layers[row]], "bar")
        for row, name in (("share", "of the kinetic energy"), ("fisher_share", "in the Fisher metric of the outputs"))
        if found.layers.get(row)
    )
    return Figure(
        "depth",
        "Where the hidden states move",
        "Each block's share of the action along depth: as features move, and as far as the outputs feel it.",
        "block",
        "share",
        series,
    )


def depth_costs(facts: Facts) -> list[Stage]:
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
