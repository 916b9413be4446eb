"""``memspace.modes``: the leading directions of a network's memory, and what carries them."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, Any

from memspace.auditing.pictures import class_name, item
from memspace.auditing.results import Chapter, Figure, Gallery, Results, Series
from memspace.display import Columns, Shown
from memspace.limits import SEED, Limit
from memspace.measurement import Measurement
from memspace.progress import Progress
from memspace.reading.modes import ROWS, Group, MemoryModes, read_modes
from memspace.reading.page import page_results, write_page
from memspace.task.task import Task
from memspace.verbs.verb import verb

__all__ = ["MOST_MODES", "MOST_ROWS", "Modes", "modes"]

MOST_MODES = Limit(1, 100, whole=True)
MOST_ROWS = Limit(4, 20_000, whole=True)  # their Gram matrix takes 3 GB
SHOWN = 8  # examples of a gallery
LISTED = 20  # examples of a mode in the table
DRAWN = 6  # groups of a figure


@dataclass(frozen=True, repr=False)
class Modes(Shown):
    """The leading eigenvectors of F, with what carries them.

    Args:
        task: its name.
        read: eigenvalues, shares of examples, layers and classes, and groups.
        results: the page.
    """

    task: str
    read: MemoryModes
    results: Results

    @property
    def measurements(self) -> tuple[Measurement, ...]:
        """Eigenvalue, share of the trace, examples and stability of every group."""
        return self.results.chapters[0].measurements

    def _title(self) -> str:
        return f"{self.task}: {self.results.chapters[0].answer}"

    def _tables(self) -> Mapping[str, Callable[[], Columns]]:
        return {name: partial(dict, columns) for name, columns in self.results.tables.items()}

    def to_dict(self) -> dict[str, Any]:
        """Give plain JSON types.

        Returns:
            ``measurements`` and the tables ``modes``, ``examples``, ``layers`` and ``classes``.
        """
        return {
            "task": self.task,
            "examples_read": self.read.plan.words,
            "measurements": [m.to_dict() for m in self.measurements],
            **{name: dict(columns) for name, columns in self.results.tables.items()},
        }


@verb
def modes(
    task: Task,
    *,
    count: Annotated[int, MOST_MODES] = 8,
    rows: Annotated[int, MOST_ROWS] = ROWS,
    seed: Annotated[int, SEED] = 0,
    page: str | Path | None = None,
    progress: Progress | None = None,
) -> Modes:
    """Read the modes of memory: leading eigenvectors of F, and the examples, classes and layers that carry each.

    An example's share of λ = vᵀFv is (1/n) Σ_r (row_r · v)² over its Fisher rows, in λ. A layer's share is the squared
    length of its part of the unit vector v. See ``docs/reading.md``.

    Args:
        task: a task, or a model followed by ``train`` and fields of :class:`memspace.Task` by name.
        count: modes; a group that begins among them is read to its end.
        rows: Fisher rows (examples times outputs) at most; beyond it a sample of the examples is read.
        seed: of the sample, and of the halves that modes are compared between.
        page: HTML file with a gallery of every group; None writes nothing.
        progress: where the work reports.

    Returns:
        the modes in groups that these examples tell apart, each with its stability.

    Raises:
        MemspaceError: bad input, in one sentence.
    """
    began = time.perf_counter()
    read = read_modes(task, count=count, rows=rows, seed=seed, progress=progress)
    chapter = Chapter(
        "modes",
        "Modes of memory",
        "Along which directions is the memory written, and by which examples?",
        _answer(read),
        read.measurements(),
        figures=(_share_figure(read), _part_figure(read, "layers"))
        + ((_part_figure(read, "classes", task),) if read.classes is not None else ()),
        galleries=tuple(_gallery(task, read, g) for g in read.groups),
        notes=(f"Read on {read.plan.words}.",),
        seconds=time.perf_counter() - began,
    )
    settings = {"count": count, "rows": rows, "seed": seed}
    results = page_results(task, chapter, settings, _columns(task, read))
    if page is not None:
        write_page(results, "its modes", "memspace.modes(task)", page)
    return Modes(task.name, read, results)


def _answer(read: MemoryModes) -> str:
    """Say what share of the trace the modes hold, and how many of them are told apart."""
    if not read.groups:
        return "No direction of the weights moves a prediction."
    share = float(read.values.sum()) / read.trace
    alone = [g.name for g in read.groups if g.first == g.last]
    together = [g.name for g in read.groups if g.first != g.last]
    text = f"{len(read.values)} modes hold {share:.0%} of tr F"
    if alone:
        text += f"; told apart: {', '.join(alone)}"
    if together:
        text += f"; not told apart inside of: {', '.join(together)}"
    return f"{text}."


def _share_figure(read: MemoryModes) -> Figure:
    names = [g.name for g in read.groups]
    stable = [g.overlap.value for g in read.groups]
    ends = [g.overlap.interval or (g.overlap.value, g.overlap.value) for g in read.groups]
    shares = [float(read.values[g.modes].sum()) / read.trace for g in read.groups]
    return Figure(
        "share",
        "Share of the trace, and stability",
        "Stability is the overlap of the modes of two random halves of the examples: 1 the same, 0 orthogonal.",
        "mode, or modes that are not told apart",
        "share",
        (
            Series("share of tr F", names, shares, "bar"),
            Series("stability", names, stable, "points", [low for low, _ in ends], [high for _, high in ends]),
        ),
    )


def _part_figure(read: MemoryModes, what: str, task: Task | None = None) -> Figure:
    """Which layers, or which classes, carry the first groups."""
    table = read.layers if what == "layers" or read.classes is None else read.classes
    names = list(read.blocks) if task is None else [_class(task, k) for k in range(len(table))]
    series = []
    for g in read.groups[:DRAWN]:
        weights = read.values[g.modes] / read.values[g.modes].sum()
        series.append(Series(f"mode {g.name}", names, (table[:, g.modes] @ weights).tolist(), "bar"))
    caption = (
        "Squared length of each mode's unit vector in a layer."
        if what == "layers"
        else "Share of each mode's eigenvalue that the training examples of a class carry."
    )
    return Figure(what, f"The {what} that carry the modes", caption, what, "share", tuple(series))


def _gallery(task: Task, read: MemoryModes, group: Group) -> Gallery:
    """The examples that carry a group of modes most."""
    shares = read.carried(group)
    items = []
    for k in shares.argsort(descending=True)[:SHOWN].tolist():
        label = "" if read.y is None else f", label {class_name(task, read.y[k])}"
        items.append(item(task, task.train, int(read.plan.index[k]), f"{shares[k]:.1%}{label}"))
    single = group.first == group.last
    caption = "Training examples with the largest shares of its eigenvalue."
    if not single:
        caption = "Training examples with the largest shares of the group. Its modes are not told apart one by one."
    title = f"Mode {group.name}" if single else f"Modes {group.name}"
    return Gallery(f"mode-{group.name}", title, caption, tuple(items))


def _columns(task: Task, read: MemoryModes) -> dict[str, dict[str, list[Any]]]:
    """The tables: a row a mode; and mode by example, layer and class."""
    count = len(read.values)
    group = [g.name for g in read.groups for _ in range(g.first, g.last + 1)]
    tables: dict[str, dict[str, list[Any]]] = {
        "modes": {
            "mode": list(range(1, count + 1)),
            "group": group,
            "eigenvalue": read.values.tolist(),
            "share": (read.values / read.trace).tolist(),
        },
        "examples": {"mode": [], "train_index": [], "share": []},
        "layers": {"mode": [], "layer": [], "share": []},
        "classes": {"mode": [], "class": [], "share": []},
    }
    numbers = task.train.numbers(read.plan.index)
    for k in range(count):
        shares = read.examples[:, k]
        top = shares.argsort(descending=True)[:LISTED]
        parts: list[tuple[str, str, list[Any], list[float]]] = [
            ("examples", "train_index", [int(numbers[i]) for i in top], shares[top].tolist()),
            ("layers", "layer", list(read.blocks), read.layers[:, k].tolist()),
        ]
        if read.classes is not None:
            names = [_class(task, c) for c in range(len(read.classes))]
            parts.append(("classes", "class", names, read.classes[:, k].tolist()))
        for table, key, names_of, values in parts:
            columns = tables[table]
            columns["mode"] += [k + 1] * len(values)
            columns[key] += names_of
            columns["share"] += values
    return tables


def _class(task: Task, number: int) -> str:
    names = task.class_names
    return names[number] if names is not None and number < len(names) else str(number)
