"""The measures of a training's path and of depth, declared; ``action.training`` and ``action.depth`` compute them."""

from __future__ import annotations

from collections.abc import Callable

from memspace.action.depth import Depth
from memspace.action.quantities import DEPTH, TRAINING, ActionQuantity
from memspace.action.training import TrainingAction
from memspace.measurement import Measurement, Unmeasured
from memspace.measures.declaration import measure
from memspace.measures.needs import needing
from memspace.value import Absent

__all__ = ["DEPTH_MEASURES", "TRAINING_MEASURES"]

Part = Callable[..., Measurement | Absent | None]
Studied = TrainingAction | Depth


def _from(study: Studied, name: str) -> Measurement | Absent | None:
    """What a study states under a name, or why it does not; None where it says nothing of it."""
    for m in study.measurements:
        if m.name == name:
            return m
    absent: Unmeasured | None = next((u for u in study.unmeasured if u.name == name), None)
    return None if absent is None else Absent(absent.reason, absent.remedy)


def _declared(kind: type[Studied], quantity: ActionQuantity, first: bool) -> Part:
    """Declare it as a measure; ``first``: where there is no study at all, this one says why."""

    @measure(
        quantity.name,
        chapter="action",
        unit=quantity.unit,
        estimator=quantity.estimator,
        source=quantity.source,
        better=quantity.better,
        shown=quantity.shown,
    )
    @needing(study=kind if first else kind | None)
    def read(study: Studied | None) -> Measurement | Absent | None:
        return None if study is None else _from(study, quantity.name)

    read.__doc__ = quantity.meaning
    return read


TRAINING_MEASURES = tuple(_declared(TrainingAction, q, q is TRAINING[0]) for q in TRAINING)
DEPTH_MEASURES = tuple(_declared(Depth, q, q is DEPTH[0]) for q in DEPTH)
