"""How much a training study trains, and on what."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated

from memspace.arguments import check_fields
from memspace.experiments.action_training import Shape
from memspace.limits import COUNT, SEVERAL, SHARE, WHOLE

__all__ = ["StudySettings"]


@dataclass(frozen=True)
class StudySettings:
    """How much is trained, and on what.

    Args:
        steps: of plain training; a method whose step costs c times as much takes steps/c.
        seeds: fresh ones, trained at the chosen setting.
        tuning: seeds of every setting before.
        shape: of the networks.
        workers: processes, each training on one thread.
        first: the first of the fresh seeds.
        noise: share of the training labels made wrong.
        train: training examples of a seed; None: four fifths of the pool.
        valid: validation examples of a seed; None: one fifth of the pool.
        test: at most so many test examples; None: all.

    Raises:
        SettingsError: a number is out of its range.
    """

    steps: Annotated[int, COUNT] = 1000
    seeds: Annotated[int, SEVERAL] = 10
    tuning: Annotated[int, COUNT] = 2
    shape: Shape = field(default_factory=Shape)
    workers: Annotated[int, COUNT] = 1
    first: Annotated[int, WHOLE] = 0
    noise: Annotated[float, SHARE] = 0.0
    train: Annotated[int | None, SEVERAL] = None
    valid: Annotated[int | None, COUNT] = None
    test: Annotated[int | None, COUNT] = None

    def __post_init__(self) -> None:
        check_fields(self)
