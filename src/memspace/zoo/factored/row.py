"""What one network on inputs of known factors holds, withstands, can spare and separates, as a row."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor

from memspace.measures.declaration import MeasureDeclaration, declaration_of
from memspace.measures.disentanglement import FACTOR_MEASURES, LayerCodes, score_codes
from memspace.measures.input_measures import INPUT_MEASURES
from memspace.measures.input_study import InputStudy, probed_inputs
from memspace.measures.scores.repeated import RepeatedScores
from memspace.measures.values import Budget
from memspace.measures.workspace import Workspace
from memspace.passes.outputs import outputs
from memspace.passes.verify import checked_space
from memspace.progress import Silent
from memspace.task.checks import untouched
from memspace.task.data import Data
from memspace.task.task import Task
from memspace.value import Absent
from memspace.zoo.counts.stored import stored_labels
from memspace.zoo.factored.cuts import cut_share
from memspace.zoo.factored.settings import FactoredSettings
from memspace.zoo.registry import ZooData
from memspace.zoo.specification import NetworkSpec
from memspace.zoo.stages.measures import network_at
from memspace.zoo.training.draws import labels_of

__all__ = ["CUTS", "MEASURED", "described_task", "memory_row"]

MEMORY = 2**30  # bytes, next to model and data
CUTS = {"efficiency.magnitude.cut": "magnitude", "efficiency.fisher.cut": "fisher-diagonal"}  # column → method
METHODS = ("mig", "dci")  # of scores of disentanglement
# The ordinary measures of an audit that a row has, by name.
MEASURED = (
    "input.lambda_max",
    "input.trace",
    "input.distance_l2",
    "disentanglement.mig",
    "disentanglement.dci",
    "disentanglement.dci.completeness",
    "disentanglement.dci.informativeness",
    "disentanglement.fisher_orthogonality",
    "disentanglement.fisher_orthogonality.null",
    "disentanglement.layer_orthogonality",
)


def described_task(spec: NetworkSpec, data: ZooData, state: Tensor) -> Task:
    """Make a task of a network with its training data, test data and the factors of the latter.

    Args:
        spec: of the network.
        data: it was trained on.
        state: (P,) weights.

    Returns:
        The task.
    """
    train, test = Data((data.x[: spec.size], labels_of(spec, data))), Data((data.x_test, data.y_test))
    return Task(network_at(spec, data, state), train, test=test, name=spec.key, factors=data.factors, decay=spec.decay)


def memory_row(
    spec: NetworkSpec, data: ZooData, state: Tensor, settings: FactoredSettings | None = None
) -> dict[str, Any]:
    """Measure a network at the end of its training.

    Args:
        spec: of the network.
        data: it was trained on; with factors.
        state: (P,) weights.
        settings: of the measures; None: the defaults.

    Returns:
        ``stored_bits`` and ``stored_bits_error`` (over training examples), ``offered_bits``; a column for each of
        ``CUTS`` and of ``MEASURED``, with its 95% interval in ``…_low`` and ``…_high`` and the number of examples in
        ``…_n``, null where it is absent; ``doubts`` says why numbers are missing or not to be trusted.
    """
    settings = settings or FactoredSettings()
    task = described_task(spec, data, state)
    space = checked_space(task)
    stored = stored_labels(*outputs(task, task.train))
    row: dict[str, Any] = {
        "key": spec.key,
        "offered_bits": stored.offered,
        "stored_bits": stored.bits,
        "stored_bits_error": stored.error,
    }
    doubts: list[str] = []
    with untouched(task.model):
        for column, method in CUTS.items():
            cut = cut_share(task, space, method, examples=settings.judged, rise=settings.rise)
            row |= _columns(column, cut.value, cut.interval, cut.n)
        study = probed_inputs(task, settings.attack(), Silent())
        values = {Task: task, Budget: Budget(settings.seed, MEMORY, Silent()), InputStudy: study}
        workspace = Workspace({**values, **_scores(values)})
        measurements, unmeasured = workspace.measure_all(_functions())
    row |= {name: None for column in MEASURED for name in _columns(column, math.nan, None, 0)}
    for m in measurements:
        row |= _columns(m.name, m.value, m.interval, m.n)
        if not m.reliable:
            doubts.append(f"{m.name}: {m.note or 'not reliable'}")
    doubts += [f"{u.name} is missing: {u.reason}" for u in unmeasured]
    return {**row, "doubts": "; ".join(doubts)}


def _scores(values: Mapping[Any, Any]) -> dict[Any, object]:
    """Codes and their scores by the methods of ``MEASURED``; without nulls, which would take as long again."""
    codes = Workspace(values).get(LayerCodes)
    scores = (
        codes if isinstance(codes, Absent) else score_codes(codes, values[Budget], METHODS, rotations=0, shuffles=0)
    )
    return {LayerCodes: codes, RepeatedScores: scores}


def _columns(column: str, value: float, interval: tuple[float, float] | None, n: int) -> dict[str, Any]:
    low, high = interval or (None, None)
    finite = value if math.isfinite(value) else None
    return {column: finite, f"{column}_low": low, f"{column}_high": high, f"{column}_n": n}


def _functions() -> list[Callable[..., Any]]:
    """The declared functions of ``MEASURED``, in its order."""
    by_name = {}
    for function in (*INPUT_MEASURES, *FACTOR_MEASURES):
        declared = declaration_of(function)
        if isinstance(declared, MeasureDeclaration):
            by_name[declared.name] = function
    return [by_name[name] for name in MEASURED]
