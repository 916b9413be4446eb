"""What a statistic returns: effects by measure and family, and what a reader wants to see of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from memspace.auditing.results import Figure
from memspace.claims.effects import Effect, mean_of
from memspace.display import Columns
from memspace.value import Absent, Value

__all__ = ["Evidence", "MeasureEffects", "averaged"]


@dataclass(frozen=True)
class MeasureEffects:
    """The effect of one measure.

    Args:
        overall: the effect over all families.
        families: the effect in each, absent where it could not be measured.
    """

    overall: Effect | Absent
    families: Mapping[str, Effect | Absent]


def averaged(families: Mapping[str, Effect | Absent]) -> MeasureEffects:
    """Put effects of families together with their mean.

    Args:
        families: effect by family.

    Returns:
        Both.
    """
    return MeasureEffects(mean_of(list(families.values())), families)


@dataclass(frozen=True)
class Evidence:
    """What a statistic found.

    Args:
        measures: effects by measure; the name is empty where a statistic judges no single measure.
        networks: rows that were used.
        left_out: rows of the population without a value that was needed.
        readings: further numbers by name, each with its unit.
        figures: what would be drawn.
        tables: columns by name.
        notes: what a reader of the effects should know, a sentence each.
        unit: of the effects, where it follows from the arguments; empty: that of the statistic.
    """

    measures: Mapping[str, MeasureEffects]
    networks: int
    left_out: int = 0
    readings: Mapping[str, tuple[Value | Absent, str]] = field(default_factory=dict)
    figures: tuple[Figure, ...] = ()
    tables: Mapping[str, Columns] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    unit: str = ""
