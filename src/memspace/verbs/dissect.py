"""``memspace.dissect``: units of a layer that detect concepts, and what the network loses without them."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from memspace.auditing.results import Results
from memspace.display import Columns, Shown
from memspace.measurement import Measurement, Unmeasured
from memspace.progress import Progress
from memspace.reading.dissection import Dissection, DissectSettings, read_dissection
from memspace.reading.dissection_page import dissection_chapter, dissection_tables
from memspace.reading.page import page_results, write_page
from memspace.task.task import Task
from memspace.verbs.verb import verb

__all__ = ["Dissected", "dissect"]


@dataclass(frozen=True, repr=False)
class Dissected(Shown):
    """The units of a layer against concepts.

    Args:
        task: its name.
        read: scores, intervals, rotated bases and ablations.
        results: the page.
    """

    task: str
    read: Dissection
    results: Results

    @property
    def measurements(self) -> tuple[Measurement, ...]:
        """Detectors, concepts that have one, mean score, the same after rotations, and losses by ablation."""
        return self.results.chapters[0].measurements

    @property
    def unmeasured(self) -> tuple[Unmeasured, ...]:
        """What is absent, and why."""
        return self.results.chapters[0].unmeasured

    def _title(self) -> str:
        return f"{self.task}: {self.results.chapters[0].answer}"

    def _tables(self) -> Mapping[str, Callable[[], Columns]]:
        return {name: partial(dict, columns) for name, columns in self.results.tables.items()}

    def to_dict(self) -> dict[str, Any]:
        """Give plain JSON types.

        Returns:
            ``measurements``, ``unmeasured`` and the tables ``units``, ``concepts`` and ``ablation``.
        """
        return {
            "task": self.task,
            "read": self.read.words,
            "measurements": [m.to_dict() for m in self.measurements],
            "unmeasured": [u.to_dict() for u in self.unmeasured],
            **{name: dict(columns) for name, columns in self.results.tables.items()},
        }


@verb
def dissect(
    task: Task,
    *,
    concepts: Any = None,
    settings: DissectSettings | None = None,
    page: str | Path | None = None,
    progress: Progress | None = None,
) -> Dissected:
    """Find the units of a layer that detect concepts, and measure what the network loses without them.

    Concepts of units are chosen on one half of the examples, and judged on the other: by the area under the ROC curve,
    or where concepts are given by position by intersection over union. Controls are concepts shuffled between
    examples, random rotations of the units, and ablation of as many other units (Bau et al. 2017, 2020). See
    ``docs/reading.md``.

    Args:
        task: a task, or a model followed by ``train`` and fields of :class:`memspace.Task` by name; ``layer`` names
            the layer, whose output is read; by default it is the input of the last linear layer.
        concepts: ``"factors"`` (their levels), ``"classes"``, or a table of 0 and 1: (n, K) by example, (n, K, T) or
            (n, K, H, W) by position, or {name: (n, ...)}. None: factors where the task has them, else classes.
        settings: examples, controls and thresholds; see :class:`memspace.DissectSettings`.
        page: HTML file with a gallery of the best detectors; None writes nothing.
        progress: where the work reports.

    Returns:
        the number of detectors with interval and nulls, the concept of every unit, and losses by concept.

    Raises:
        MemspaceError: bad input, in one sentence.
    """
    began = time.perf_counter()
    how = settings or DissectSettings()
    read = read_dissection(task, concepts, how, progress)
    chapter = dissection_chapter(task, read, time.perf_counter() - began)
    results = page_results(task, chapter, dict(how.__dict__), dissection_tables(read))
    if page is not None:
        write_page(results, "its units", "memspace.dissect(task)", page)
    return Dissected(task.name, read, results)
