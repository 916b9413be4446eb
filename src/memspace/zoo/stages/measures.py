"""Measuring trained networks of a zoo: a task for each, as for anyone's network, and its rows in the store."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from memspace.measures.declaration import declaration_of
from memspace.measures.predictors.values import Sisters, TrainingCurve
from memspace.task.data import Data
from memspace.task.run import Run
from memspace.task.task import Task
from memspace.zoo.declaration import Zoo
from memspace.zoo.measuring import ALL_MEASURES, NetworkMeasures, measure_network
from memspace.zoo.measuring_settings import ZooSettings
from memspace.zoo.registry import ZooData
from memspace.zoo.specification import NetworkSpec, settings_hash
from memspace.zoo.stage import NetworksPiece, stage, undone
from memspace.zoo.stages.outcomes import MOMENTS, moment_index
from memspace.zoo.store import ZooStore
from memspace.zoo.training.draws import initial_network, labels_of
from memspace.zoo.training.stack import Weights
from memspace.zoo.work import data_of, parts_by_data

__all__ = [
    "MEASURES_VERSION",
    "MeasuringPiece",
    "curve_of",
    "measuring_pieces",
    "network_at",
    "run_of",
    "seen_by",
    "task_of",
    "version_of",
]

MEASURES_VERSION = 1  # raised when the code of a measure changes what it gives
TOGETHER = 4  # networks of a piece
EARLY_WITHOUT = ("learning_coefficient",)  # sampled for seconds, and about a minimum: not before the end
STATES = 20  # recorded states that a path is read on
ROWS = 512  # of representations that are compared with sister networks


@dataclass(frozen=True)
class MeasuringPiece(NetworksPiece):
    """Networks to measure at every moment.

    Args:
        sisters: by configuration, the networks that differ in the seed alone.
        settings: of the measures.
    """

    sisters: Mapping[str, tuple[NetworkSpec, ...]]
    settings: ZooSettings
    table = "measured"

    @property
    def version(self) -> str:
        """Hash of the settings and of what is measured."""
        return version_of(self.settings)

    def work(self, store: ZooStore, spec: NetworkSpec, tick: Callable[[], None]) -> None:
        """Measure a network at every moment.

        Args:
            store: that has the trained networks.
            spec: of the network.
            tick: not called.
        """
        data = data_of(spec.data, self.data_root)
        row = store.rows_of("trained", spec.key).row(0, named=True)
        sisters = tuple(s for s in self.sisters[spec.configuration] if s.key != spec.key)
        rows, layers = [], []
        began = time.process_time()
        for moment in MOMENTS:
            settings = self.settings if moment == 1.0 else _early(self.settings)
            measured = _measured(store, spec, sisters, data, row, moment, settings)
            rows += _rows(spec.key, moment, self.version, measured)
            layers += _layers(spec.key, moment, measured)
        store.add_rows("layers", spec.key, layers)
        spent = time.process_time() - began
        store.add_rows(self.table, spec.key, [{**r, "seconds": spent} for r in rows])


@stage("measures", 2)
def measuring_pieces(
    zoo: Zoo, store: ZooStore, data_root: Path | None, settings: ZooSettings | None = None
) -> list[MeasuringPiece]:
    """Cut the trained networks that are not measured yet into pieces.

    Args:
        zoo: the declaration.
        store: what is there.
        data_root: where data sets lie.
        settings: of the measures; None: the defaults, without the groups that the zoo leaves out.

    Returns:
        The pieces.
    """
    settings = settings or ZooSettings(without=zoo.without)
    trained = store.trained_keys()
    family: dict[str, tuple[NetworkSpec, ...]] = {}
    for spec in zoo.specs:
        if spec.key in trained:
            family[spec.configuration] = (*family.get(spec.configuration, ()), spec)
    pieces = []
    for part in parts_by_data(zoo, undone(store, MeasuringPiece.table, version_of(settings)), TOGETHER):
        sisters = {s.configuration: family[s.configuration] for s in part}
        pieces.append(MeasuringPiece(part, store.folder, data_root, sisters, settings))
    return pieces


def _early(settings: ZooSettings) -> ZooSettings:
    """The settings for a moment before the end."""
    return replace(settings, without=tuple(dict.fromkeys((*settings.without, *EARLY_WITHOUT))))


def version_of(settings: ZooSettings) -> str:
    """Compute a hash of what decides the numbers: which measures, their settings and the version of their code.

    Args:
        settings: of the measures.

    Returns:
        12 hexadecimal digits.
    """
    names = sorted(declaration_of(f).name for f in ALL_MEASURES)  # type: ignore[attr-defined]
    content = [MEASURES_VERSION, names, EARLY_WITHOUT, {k: v for k, v in asdict(settings).items() if k != "memory"}]
    return settings_hash(content)


def task_of(spec: NetworkSpec, data: ZooData, steps: Tensor, states: Tensor, index: int) -> Task:
    """Make a task of a network at a recorded state, without test data: no measure sees them.

    Args:
        spec: of the network.
        data: it was trained on.
        steps: (S,) of the states.
        states: (S, P) weights.
        index: which state.

    Returns:
        The task, with the training recorded up to that state.
    """
    model = network_at(spec, data, states[index])
    run = run_of(spec, Weights.of(model), steps[: index + 1], states[: index + 1])
    x, y = data.x[: spec.size], labels_of(spec, data)
    return Task(model, Data((x, y)), name=spec.key, decay=spec.decay, run=run)


def run_of(spec: NetworkSpec, layout: Weights, steps: Tensor, states: Tensor) -> Run | None:
    """Make the record of a training: at most ``STATES`` of its states, evenly over the recorded ones.

    Args:
        spec: of the network.
        layout: of the states.
        steps: (S,) of the states.
        states: (S, P) weights.

    Returns:
        The record; None where there is nothing but the initialisation.
    """
    if len(steps) < 2:
        return None
    chosen = sorted({round(k * (len(steps) - 1) / (STATES - 1)) for k in range(STATES)})
    momentum = 10.0 if spec.optimiser == "sgd" else 1.0  # Σ of a unit push under a momentum of 0.9
    named = {"adam": "Adam", "rmsprop": "RMSprop", "sgd": "SGD with momentum 0.9"}[spec.optimiser]
    epoch = spec.size // min(spec.batch, spec.size)
    return Run(
        [layout.split(states[k]) for k in chosen],
        tuple(float(steps[k]) * spec.learning_rate * momentum for k in chosen),
        tuple(math.ceil(steps[k]) for k in chosen),
        epochs=float(steps[-1]) / epoch,
        optimiser=named,
    )


def _measured(
    store: ZooStore,
    spec: NetworkSpec,
    sisters: tuple[NetworkSpec, ...],
    data: ZooData,
    row: Mapping[str, Any],
    moment: float,
    settings: ZooSettings,
) -> NetworkMeasures:
    steps, states = store.states(spec.key)
    index = moment_index(steps, moment)
    task = task_of(spec, data, steps, states, index)
    curve = curve_of(spec, row, float(steps[index]), whole=moment == 1.0)
    others = tuple(_seen(store, s, data, moment) for s in sisters)
    company = Sisters(*_seen(store, spec, data, moment), others) if others else None
    return measure_network(task, curve=curve, sisters=company, settings=settings)


def curve_of(spec: NetworkSpec, row: Mapping[str, Any], end: float, *, whole: bool = True) -> TrainingCurve:
    """Read the loss curve of a network.

    Args:
        spec: of the network.
        row: of ``trained``.
        end: step up to which it is read.
        whole: the step is the last one.

    Returns:
        The curve.
    """
    points = [(s, v) for s, v in zip(row["curve_steps"], row["curve_losses"], strict=True) if s <= end]
    epoch = spec.size // min(spec.batch, spec.size)
    reached = math.ceil(end) if row["reached"] and whole else None
    return TrainingCurve(tuple(math.ceil(s) for s, _ in points), tuple(v for _, v in points), reached, end / epoch)


def _seen(store: ZooStore, spec: NetworkSpec, data: ZooData, moment: float) -> tuple[Tensor, Tensor]:
    steps, states = store.states(spec.key)
    return seen_by(network_at(spec, data, states[moment_index(steps, moment)]), data, spec.size)


def seen_by(model: nn.Module, data: ZooData, size: int) -> tuple[Tensor, Tensor]:
    """Read what the last layer is given, and the outputs, on the first training examples.

    Args:
        model: a network of a family: its last layer is ``head``.
        data: that it was trained on.
        size: training examples.

    Returns:
        A row a prediction.
    """
    read: list[Tensor] = []
    handle = model.get_submodule("head").register_forward_hook(lambda _m, args, _f: read.append(args[0].detach()))
    try:
        with torch.no_grad():
            f: Tensor = model(data.x[: min(size, ROWS)])
    finally:
        handle.remove()
    return read[0].flatten(0, -2)[:ROWS], f.flatten(0, -2)[:ROWS]


def network_at(spec: NetworkSpec, data: ZooData, state: Tensor) -> nn.Module:
    """Make a network at a recorded state.

    Args:
        spec: of the network.
        data: it was trained on.
        state: (P,) weights.

    Returns:
        The network, in eval mode.
    """
    model = initial_network(spec, data)
    with torch.no_grad():
        for name, values in Weights.of(model).split(state).items():
            model.get_parameter(name).copy_(values)
    return model.eval()


def _rows(key: str, moment: float, version: str, measured: NetworkMeasures) -> list[dict[str, Any]]:
    common = {"key": key, "moment": moment, "version": version}
    empty = {"value": None, "low": None, "high": None, "n": None}
    rows: list[dict[str, Any]] = []
    for m in measured.measurements:
        low, high = m.interval or (None, None)
        numbers = {"value": m.value, "low": low, "high": high, "n": m.n}
        rows.append({**common, "name": m.name, **numbers, "unit": m.unit, "reliable": m.reliable, "note": m.note})
    for u in measured.unmeasured:
        rows.append({**common, "name": u.name, **empty, "unit": "", "reliable": False, "note": u.reason})
    return rows


def _layers(key: str, moment: float, measured: NetworkMeasures) -> list[dict[str, Any]]:
    columns = measured.layers
    return [
        {"key": key, "moment": moment, "place": k, **{n: column[k] for n, column in columns.items()}}
        for k in range(len(columns["layer"]))
    ]
