"""What a user may set about the explanation of one prediction."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Annotated

from memspace.arguments import check_fields
from memspace.attribution.settings import InfluenceSettings
from memspace.limits import COUNT, DAMPING, Limit, one_of
from memspace.reading.line import BASELINES

__all__ = ["ExplainSettings"]


@dataclass(frozen=True)
class ExplainSettings:
    """How a prediction is explained.

    Args:
        top: training examples shown at either end.
        count: modes of memory that the pushes are split by.
        baseline: where integrated gradients start: ``mean`` of training examples, or ``zero``.
        names: of the entries of the input, in their order; None: by their place.
        engine: ``auto``, ``dual``, ``iterative`` or ``ekfac``, as for :func:`memspace.influence`.
        damping: γ; None: chosen from the data.
        influence: its budget, accuracy and seed.

    Raises:
        SettingsError: a number is out of its range, or a word not one of these.
    """

    top: Annotated[int, COUNT] = 8
    count: Annotated[int, Limit(1, 100, whole=True)] = 8
    baseline: str = "mean"
    names: Sequence[str] | None = None
    engine: str = "auto"
    damping: Annotated[float | None, DAMPING] = None
    influence: InfluenceSettings = field(default_factory=InfluenceSettings)

    def __post_init__(self) -> None:
        check_fields(self)
        one_of(self.baseline, BASELINES, "baseline")
