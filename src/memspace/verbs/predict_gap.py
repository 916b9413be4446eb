"""``memspace.predict_gap``: test loss and gap that networks with such measures have, told without test data."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from memspace.auditing.chapters.gap import gap_results
from memspace.auditing.results import Results
from memspace.auditing.store import write_text
from memspace.display import Columns, Shown
from memspace.gap.file import opened_gap_model
from memspace.gap.model import GapModel, GapPrediction
from memspace.measurement import Measurement, Unmeasured
from memspace.report.html import render
from memspace.task.task import Task
from memspace.verbs.verb import verb
from memspace.zoo.gap import outputs_of, predicted_gap

__all__ = ["PredictedGap", "page_of", "predict_gap"]


@dataclass(frozen=True, repr=False)
class PredictedGap(Shown):
    """What a calibration tells of a network, apart from what its test data say.

    Args:
        task: its name.
        prediction: gap and test loss with intervals, what drives them, and whether to rely on them.
        results: the page: the same as measurements, and the measured gap where there are test data.
    """

    task: str
    prediction: GapPrediction
    results: Results

    @property
    def measurements(self) -> tuple[Measurement, ...]:
        """What was told and what was measured."""
        return self.results.chapters[0].measurements

    @property
    def unmeasured(self) -> tuple[Unmeasured, ...]:
        """What was not, and why."""
        return self.results.chapters[0].unmeasured

    def _title(self) -> str:
        return f"{self.task}: {self.results.chapters[0].answer}"

    def _tables(self) -> Mapping[str, Callable[[], Columns]]:
        drivers = self.prediction.drivers
        return {"drivers": lambda: {"measure": list(drivers), "part": list(drivers.values())}}

    def to_dict(self) -> dict[str, Any]:
        """Give plain JSON types.

        Returns:
            ``expected`` and, apart from it, ``measured``.
        """
        measured = [m.to_dict() for m in self.measurements if m.name == MEASURED]
        return {"task": self.task, "expected": self.prediction.to_dict(), "measured": measured}


MEASURED = "generalisation.measured_gap"


@verb
def predict_gap(
    task: Task, *, calibration: GapModel | str | Path | None = None, page: str | Path | None = None
) -> PredictedGap:
    """Predict test loss and gap from a network's measures by a calibration on other networks.

    Test data play no part in it: where there are any, the measured gap is shown next to it.

    Args:
        task: a task, or a model followed by ``train``, ``test`` and fields of :class:`memspace.Task` by name. Its
            ``run`` adds measures that need the weights at the start.
        calibration: made by ``memspace zoo calibrate``, or its file; None: the one that is shipped.
        page: HTML file that shows it; None writes nothing.

    Returns:
        gap and test loss with intervals of the calibration's level; not reliable, with one sentence, where the network
        lies outside of what was calibrated.

    Raises:
        DataError: there is no calibration, it cannot be read, or the network lacks a number that it needs.
        TaskError: the network's outputs are no classes.
    """
    prediction, results = page_of(task, *opened_gap_model(calibration, "memspace.predict_gap"))
    if page is not None:
        write_text(Path(page), render(results))
    return PredictedGap(task.name, prediction, results)


def page_of(task: Task, model: GapModel, source: str) -> tuple[GapPrediction, Results]:
    """Measure a network, tell its gap by a calibration, and put both on a page.

    Args:
        task: the network and its data.
        model: the calibration.
        source: which one it is.

    Returns:
        The prediction, and a page of one chapter.

    Raises:
        DataError: the network lacks a number that the calibration needs.
        TaskError: the network's outputs are no classes.
    """
    prediction = predicted_gap(task, model)
    return prediction, gap_results(task, prediction, *outputs_of(task), source)
