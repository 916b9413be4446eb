"""memspace's measures of one small network, in a second or two on one thread.

Nothing is trained and no label is judged. The metric is read on a sample of the training examples, the same number of
rows for every network, because what a sample cannot show (directions beyond its rows) is then alike for all.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from memspace.display import Columns, Shown
from memspace.measurement import Measurement, Unmeasured
from memspace.measures import complexity, generalisation, memory, spectrum
from memspace.measures.predictors import evidence
from memspace.measures.predictors import spectrum as shapes
from memspace.measures.predictors.spectrum import AdmissibleBall
from memspace.measures.workspace import Workspace
from memspace.passes.verify import checked_space
from memspace.task.checks import untouched
from memspace.task.task import Task
from memspace.zoo.measuring_reading import read_network
from memspace.zoo.measuring_settings import ZooSettings

__all__ = ["ALL_MEASURES", "Measures", "ZooSettings", "measure_network"]

Part = Callable[..., Any]

WHOLE: Mapping[str, tuple[Part, ...]] = {
    "spectrum": (
        spectrum.trace,
        spectrum.largest_eigenvalue,
        spectrum.effective_rank,
        spectrum.participation_ratio,
        spectrum.flat_share,
        spectrum.parameter_count,
        shapes.trace_over_examples,
        shapes.local_effective_dimension,
        shapes.prior_mass,
    ),
    "complexity": (
        complexity.norm_of_weights,
        complexity.empirical_norm_of_weights,
        complexity.information,
        complexity.effective_parameters,
        evidence.damping_of_evidence,
        evidence.information_at_evidence,
        evidence.effective_parameters_at_evidence,
        complexity.distance_from_null,
        complexity.distance_from_initialisation,
        complexity.bits_with_network,
        complexity.bits_without_network,
        complexity.labels_compressed,
        complexity.range_over_gains,
        generalisation.train_loss,
    ),
}
DRAWN: Mapping[str, tuple[Part, ...]] = {
    "left out": (
        generalisation.tic_gap,
        generalisation.tic_estimate,
        generalisation.loo_estimate_as_given,
        memory.self_influence,
        memory.loo_loss_rise,
    ),
}
ALL_MEASURES: tuple[Part, ...] = tuple(f for groups in (WHOLE, DRAWN) for part in groups.values() for f in part)


@dataclass(frozen=True, repr=False)
class Measures(Shown):
    """What was measured of one network.

    Args:
        measurements: the numbers.
        unmeasured: what could not be measured, with the reason.
        seconds: wall-clock time by group of measures; ``reading``: of outputs and metric.
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


def measure_network(task: Task, *, settings: ZooSettings | None = None) -> Measures:
    """Measure a network; its model is left as it was.

    Args:
        task: the network with its training data and, where the path is to be measured, its recorded training.
        settings: of the zoo; None: the defaults.

    Returns:
        Numbers and reasons, a name each.

    Raises:
        MemspaceError: the task cannot be read at all.
    """
    settings = settings or ZooSettings()
    clock = _Clock()
    with clock("reading"):
        space = checked_space(task)
    with untouched(task.model):
        with clock("reading"):
            reading = read_network(task, space, settings)
        ball = {AdmissibleBall: AdmissibleBall(settings.epsilon, settings.radius)}
        whole, drawn = Workspace({**reading.whole, **ball}), Workspace(reading.drawn)
        measurements: list[Measurement] = []
        unmeasured: list[Unmeasured] = []
        for workspace, groups in ((whole, WHOLE), (drawn, DRAWN)):
            for group, functions in groups.items():
                with clock(group):
                    made, absent = workspace.measure_all(functions)
                measurements += made
                unmeasured += absent
    return Measures(tuple(measurements), tuple(unmeasured), clock.seconds, reading.layers)


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
