"""memspace's measures of one small network, in a second or two on one thread.

Nothing is trained and no label is judged. The metric is read on a sample of the training examples, the same number of
rows for every network, because what a sample cannot show (directions beyond its rows) is then alike for all.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

from memspace.action.depth import Depth
from memspace.action.measures import DEPTH_MEASURES, TRAINING_MEASURES
from memspace.action.training import TrainingAction
from memspace.auditing.chapters.predictors import PREDICTORS
from memspace.display import Columns, Shown
from memspace.limits import one_of
from memspace.measurement import Measurement, Unmeasured
from memspace.measures import complexity, generalisation, memory, spectrum
from memspace.measures.declaration import declaration_of
from memspace.measures.predictors import evidence
from memspace.measures.predictors.spectrum import AdmissibleBall
from memspace.measures.predictors.values import Sisters, TrainingCurve
from memspace.measures.workspace import Workspace
from memspace.passes.verify import checked_space
from memspace.task.checks import untouched
from memspace.task.task import Task
from memspace.zoo.measuring_paths import depth_of, path_of
from memspace.zoo.measuring_reading import read_network
from memspace.zoo.measuring_settings import ZooSettings

__all__ = ["ALL_MEASURES", "GROUPS", "NetworkMeasures", "ZooSettings", "measure_network"]

Part = Callable[..., Any]
Groups = Mapping[str, tuple[Part, ...]]

# Of the sample of examples that leave-one-out is read on; all others are of all examples, with the sample's metric.
DRAWN: Groups = {
    "left out": (
        generalisation.tic_gap,
        generalisation.tic_estimate,
        generalisation.loo_estimate_as_given,
        memory.self_influence,
        memory.loo_loss_rise,
        evidence.gap_at_evidence,
        evidence.left_out_at_evidence,
    )
}


def _by_module(functions: Iterable[Part]) -> dict[str, tuple[Part, ...]]:
    """Measures that are not in ``DRAWN``, by the last word of their module's name."""
    groups: dict[str, tuple[Part, ...]] = {}
    for function in functions:
        if not any(function in drawn for drawn in DRAWN.values()):
            name = function.__module__.rpartition(".")[2]
            groups[name] = (*groups.get(name, ()), function)
    return groups


WHOLE: Groups = {
    "complexity": (
        complexity.norm_of_weights,
        complexity.empirical_norm_of_weights,
        complexity.information,
        complexity.effective_parameters,
        complexity.distance_from_null,
        complexity.distance_from_initialisation,
        complexity.bits_with_network,
        complexity.bits_without_network,
        complexity.labels_compressed,
        complexity.range_over_gains,
        generalisation.train_loss,
    ),
    "geometry": (
        spectrum.trace,
        spectrum.largest_eigenvalue,
        spectrum.effective_rank,
        spectrum.participation_ratio,
        spectrum.flat_share,
        spectrum.parameter_count,
    ),
    "action": TRAINING_MEASURES,
    "depth": DEPTH_MEASURES,
    **_by_module(PREDICTORS.all_measures),
}
GROUPS = (*WHOLE, *DRAWN)
ALL_MEASURES: tuple[Part, ...] = tuple(f for groups in (WHOLE, DRAWN) for part in groups.values() for f in part)


@dataclass(frozen=True, repr=False)
class NetworkMeasures(Shown):
    """What was measured of one network.

    Args:
        measurements: the numbers.
        unmeasured: what could not be measured, with the reason.
        seconds: wall-clock time by group of measures; ``reading``: of outputs and metric. What several groups need is
            in the time of the first.
        layers: columns ``layer``, ``parameters``, ``fisher_trace`` (nats), a row a layer.
    """

    measurements: tuple[Measurement, ...]
    unmeasured: tuple[Unmeasured, ...]
    seconds: Mapping[str, float]
    layers: Mapping[str, tuple[Any, ...]]

    def _title(self) -> str:
        return f"{len(self.measurements)} measures in {sum(self.seconds.values()):.1f} s"

    def _tables(self) -> Mapping[str, Callable[[], Columns]]:
        return {"layers": lambda: self.layers}


def measure_network(
    task: Task,
    *,
    curve: TrainingCurve | None = None,
    sisters: Sisters | None = None,
    settings: ZooSettings | None = None,
    only: Collection[str] | None = None,
) -> NetworkMeasures:
    """Measure a network; its model is left as it was.

    Args:
        task: the network with its training data and, where its path is to be measured, the recorded training up to
            these weights.
        curve: its training loss step by step, if known.
        sisters: networks that differ in the seed alone, if there are any.
        settings: of the zoo; None: the defaults.
        only: names of the measures to take; None: all.

    Returns:
        Numbers and reasons, a name each.

    Raises:
        SettingsError: there is no group of measures of a name to be left out.
        MemspaceError: the task cannot be read at all.
    """
    settings = settings or ZooSettings()
    left_out = {one_of(group, GROUPS, "group of measures") for group in settings.without}
    clock = _Clock()
    with clock("reading"):
        space = checked_space(task)
    with untouched(task.model):
        with clock("reading"):
            reading = read_network(task, space, settings)
        values: dict[Any, object] = {
            **reading.whole,
            AdmissibleBall: AdmissibleBall(settings.epsilon, settings.radius),
            **({} if curve is None else {TrainingCurve: curve}),
            **({} if sisters is None else {Sisters: sisters}),
        }
        if "action" not in left_out and _wanted(TRAINING_MEASURES, only):
            with clock("action"):
                values[TrainingAction] = path_of(task, space, settings)
        if "depth" not in left_out and _wanted(DEPTH_MEASURES, only):
            with clock("depth"):
                values[Depth] = depth_of(task, settings)
        measurements: list[Measurement] = []
        unmeasured: list[Unmeasured] = []
        for workspace, groups, doubt in (
            (Workspace(values), WHOLE, ""),
            (Workspace(reading.drawn), DRAWN, reading.doubt),
        ):
            for group in (g for g in groups if g not in left_out):
                with clock(group):
                    made, absent = workspace.measure_all(_wanted(groups[group], only))
                measurements += [_doubted(m, doubt) for m in made] if doubt else made
                unmeasured += absent
    return NetworkMeasures(tuple(measurements), tuple(unmeasured), clock.seconds, reading.layers)


def _wanted(functions: Iterable[Part], only: Collection[str] | None) -> list[Part]:
    """The measures whose names are asked for."""
    return [f for f in functions if only is None or getattr(declaration_of(f), "name", "") in only]


def _doubted(measurement: Measurement, doubt: str) -> Measurement:
    note = "; ".join(part for part in (measurement.note, doubt) if part)
    return replace(measurement, reliable=False, note=note)


class _Clock:
    """Adds up wall-clock time by group."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    @contextmanager
    def __call__(self, group: str) -> Iterator[None]:
        begun = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[group] = self.seconds.get(group, 0.0) + time.perf_counter() - begun
