"""Which calibrations tell the gap while a training runs, and how long it will be."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

from memspace.arguments import check_fields, described
from memspace.errors import SettingsError
from memspace.gap.file import opened_gap_model
from memspace.gap.model import GapModel, GapPrediction
from memspace.limits import COUNT
from memspace.task.likelihood import Likelihood
from memspace.task.task import Task
from memspace.zoo.gap import measuring_settings, predicted_gap

__all__ = ["GapForecast"]

WHERE = "memspace.GapForecast"


@dataclass(frozen=True)
class GapForecast:
    """What :func:`memspace.watch` tells of the gap at a training's end: ``watch(..., expect=GapForecast(...))``.

    Args:
        calibrations: made by ``memspace zoo calibrate``, or their files: one, or one a moment of the training. None:
            the one that is shipped.
        planned: optimiser steps that the training will take. Without it only a calibration of the end can be used: an
            earlier share of the training is not known before it is over.

    Raises:
        DataError: there is no calibration, it cannot be read, or it is of another version.
        SettingsError: something else is given, or two calibrations of one moment.
    """

    calibrations: Any = None
    planned: Annotated[int | None, COUNT] = None
    models: tuple[GapModel, ...] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        check_fields(self, besides=("calibrations", "models"))
        single = self.calibrations is None or isinstance(self.calibrations, GapModel | str | Path)
        several = (self.calibrations,) if single else self.calibrations
        if not isinstance(several, Sequence) or not several:
            raise _wrong(described(several))
        models = []
        for one in several:
            if not (single or isinstance(one, GapModel | str | Path)):
                raise _wrong(described(one))
            models.append(opened_gap_model(one, WHERE)[0])
        models.sort(key=lambda model: model.moment)
        if len({model.moment for model in models}) < len(models):
            raise SettingsError("two calibrations are of one moment", where=WHERE, remedy="give one a moment")
        object.__setattr__(self, "models", tuple(models))

    @property
    def moments(self) -> tuple[float, ...]:
        """Shares of the training that the calibrations are of, in order."""
        return tuple(model.moment for model in self.models)

    def check(self, law: Likelihood) -> None:
        """Refuse what no network of this training can be told by.

        Args:
            law: the output law.

        Raises:
            TaskError: the outputs are no classes: nothing of the kind was calibrated.
            DataError: a calibration is of another version of the measures.
        """
        for model in self.models:
            measuring_settings(model, law, WHERE)

    def told(self, task: Task, moment: float) -> GapPrediction:
        """Tell the gap of a network.

        Args:
            task: the network as it is now, its training data, and its training so far.
            moment: of ``moments``.

        Returns:
            The prediction for the end of the training.

        Raises:
            MemspaceError: it lacks a number that the calibration needs, or cannot be read.
        """
        return predicted_gap(task, self.models[self.moments.index(moment)])


def _wrong(what: str) -> SettingsError:
    remedy = "give files that `memspace zoo calibrate` made, or None for the one that is shipped"
    return SettingsError(f"calibrations is {what}", where=WHERE, remedy=remedy)
