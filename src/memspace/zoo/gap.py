"""The gap of a network and the zoo that it is calibrated on: both measured by the same code at the same settings."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from memspace.auditing.reading import NO_TEST_DATA
from memspace.errors import DataError, TaskError
from memspace.frames import polars
from memspace.gap.domain import NetworkFacts
from memspace.gap.file import REMEDY
from memspace.gap.fit import fit_gap
from memspace.gap.model import GapModel, GapPrediction
from memspace.gap.predictors import EXAMPLES, PARAMETERS
from memspace.measures.correct import by_example
from memspace.measures.values import TestOutputs, TrainingOutputs
from memspace.passes.outputs import outputs
from memspace.passes.verify import checked_space
from memspace.task.likelihood import Likelihood
from memspace.task.task import Task
from memspace.value import Absent
from memspace.zoo.measuring import measure_network
from memspace.zoo.measuring_settings import ZooSettings
from memspace.zoo.results import ZooResults
from memspace.zoo.stages.measures import MEASURES_VERSION, version_of
from memspace.zoo.store import ZooStore
from memspace.zoo.work import data_of

if TYPE_CHECKING:
    import polars as pl

__all__ = ["calibrate_gap", "gap_table", "measuring_settings", "outputs_of", "predicted_gap", "settings_of"]

LAW = "categorical"


def gap_table(networks: pl.DataFrame, moment: float = 1.0, data_root: Path | None = None) -> pl.DataFrame:
    """Make the table that the gap is calibrated on: networks that reached their training loss from fresh weights.

    Args:
        networks: a row a network and moment (:class:`memspace.zoo.results.ZooResults`).
        moment: share of the training's steps at which measures were taken.
        data_root: where data sets lie; their number of outputs is read there.

    Returns:
        A row a network, as :func:`memspace.gap.fit.fit_gap` takes it. Of an earlier moment it has the training loss of
        then, which is what a network has that is still being trained, and the test loss of the end.

    Raises:
        DataError: measures are missing, or the data sets are not found.
    """
    column = polars().col
    if "generalisation.train_loss" not in networks.columns:
        remedy = "run `memspace zoo run` with the stage measures there"
        raise DataError("its networks are not measured", where="the store", remedy=remedy)
    chosen = (column("moment") == moment) & column("fitted") & (column("start") == "fresh") & ~column("permuted")
    table = networks.filter(chosen)
    if moment < 1:
        table = table.with_columns(train_loss=column("generalisation.train_loss"))
    read = {name: data_of(name, data_root) for name in table["data"].unique().to_list()}
    return table.with_columns(
        column("size").alias(EXAMPLES),
        column("parameters").alias(PARAMETERS),
        outputs=column("data").replace_strict({n: d.outputs for n, d in read.items()}, return_dtype=polars().Int64),
        sequence=column("data").replace_strict({n: d.sequence for n, d in read.items()}, return_dtype=polars().Boolean),
    )


def calibrate_gap(
    store: ZooStore,
    *,
    moment: float = 1.0,
    group: str = "block",
    data_root: Path | None = None,
    settings: ZooSettings | None = None,
) -> GapModel:
    """Calibrate the gap on a zoo.

    Args:
        store: of the zoo, its networks measured.
        moment: share of the training's steps at which measures were taken.
        group: column whose values are left out in turn.
        data_root: where data sets lie.
        settings: by which the networks were measured; None: the defaults.

    Returns:
        The calibration.

    Raises:
        DataError: networks, outcomes or measures are missing or too few.
    """
    chosen = settings or ZooSettings()
    table = gap_table(ZooResults([store]).table(), moment, data_root)
    measured = store.rows("measured")
    if set(measured["version"].to_list()) != {version_of(chosen)}:
        what = "networks were measured by another version, or at other settings"
        raise DataError(what, where=str(store.folder), remedy="run `memspace zoo run` with the stage measures there")
    return fit_gap(table, group=group, law=LAW, moment=moment, settings=settings_of(chosen), store=store.digest())


def settings_of(settings: ZooSettings) -> dict[str, Any]:
    """List what decides the numbers of a calibration.

    Args:
        settings: of the measures.

    Returns:
        Numbers by name, the version of the measures among them.
    """
    numbers = {k: v for k, v in asdict(settings).items() if isinstance(v, int | float)}
    return {"version": MEASURES_VERSION, **numbers}


def measuring_settings(model: GapModel, law: Likelihood, where: str = "predict-gap") -> ZooSettings:
    """Give the settings by which a network must be measured to be told by a calibration.

    Args:
        model: the calibration.
        law: of the network's outputs.
        where: who asks.

    Returns:
        The settings.

    Raises:
        TaskError: the outputs are no classes: nothing of the kind was calibrated.
        DataError: the calibration is of another version of the measures.
    """
    if law.name != LAW:
        raise TaskError(
            f"the output law is {law.name}, and only networks of the law {LAW} were calibrated",
            where=where,
            remedy="read a classifier with one class an example",
        )
    numbers = dict(model.settings)
    if numbers.pop("version", None) != MEASURES_VERSION or set(numbers) - set(ZooSettings.__dataclass_fields__):
        raise DataError("the calibration is of another version of the measures", where=where, remedy=REMEDY)
    return ZooSettings(**numbers)


def predicted_gap(task: Task, model: GapModel) -> GapPrediction:
    """Measure a network as those of a calibration were, and tell its gap.

    Args:
        task: the network and its training data; test data are not read.
        model: the calibration.

    Returns:
        The prediction.

    Raises:
        TaskError: its outputs are no classes: nothing of the kind was calibrated.
        DataError: it lacks a number that the calibration needs, or that is of another version of the measures.
        MemspaceError: the task cannot be read.
    """
    settings = measuring_settings(model, task.likelihood)
    measured = measure_network(task, settings=settings, only=model.predictors)
    values = {m.name: m.value for m in measured.measurements}
    values |= {EXAMPLES: float(len(task.train)), PARAMETERS: float(checked_space(task).size)}
    f, _ = outputs(task, task.train, index=torch.arange(1))
    return model.predict(values, NetworkFacts(LAW, f.shape[-1], f.dim() > 2))


def outputs_of(task: Task) -> tuple[TrainingOutputs, TestOutputs | Absent]:
    """Read a network's outputs, by which what was told is compared with what is measured.

    Args:
        task: the network and its data.

    Returns:
        Outputs on the training data, and on the test data where there are any.
    """
    f, y = outputs(task, task.train)
    law = task.likelihood
    training = TrainingOutputs(f, y, by_example(law.nll(f.double(), y)), law.weight(f, y))
    return training, NO_TEST_DATA if task.test is None else TestOutputs(*outputs(task, task.test))
