"""Capacity of some architectures: the measured bits, next to the information complexity of networks that hold them."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from memspace.display import Columns, Shown
from memspace.errors import TaskError
from memspace.experiments.capacity import (
    Capacity,
    CapacitySettings,
    measure_capacity,
    memorise,
    mlp,
    random_task,
)
from memspace.experiments.forgetting import Forgetting, forgetting_curve
from memspace.measurement import Measurement
from memspace.measures.complexity import information_bits
from memspace.measures.damping import DampingChoice
from memspace.metric.fisher import build
from memspace.passes.verify import verified_space
from memspace.progress import Progress, Silent
from memspace.task.data import Data, first_tensor
from memspace.task.task import Task

__all__ = ["Architecture", "CapacityResults", "CapacityStudy", "architectures", "information_of", "study_capacity"]

DENSE = 1500  # parameters up to which the whole Fisher matrix is formed
OVERWRITTEN = (0.125, 0.25, 0.5, 1.0, 2.0)  # sizes of the second set, in units of the first


@dataclass(frozen=True)
class Architecture:
    """A way to make fresh networks.

    Args:
        name: in tables.
        make: makes a fresh network.
        shape: of one input.
        classes: K.
    """

    name: str
    make: Callable[[], nn.Module]
    shape: tuple[int, ...]
    classes: int


@dataclass(frozen=True, repr=False)
class CapacityStudy(Shown):
    """An architecture's capacity.

    Args:
        architecture: what was measured.
        capacity: what it stores.
        measurements: capacity, bits per parameter, information complexity, overwriting.
        forgetting: what overwriting leaves, where asked for.
    """

    architecture: Architecture
    capacity: Capacity
    measurements: tuple[Measurement, ...]
    forgetting: Forgetting | None

    def _title(self) -> str:
        return f"{self.architecture.name}: {self.capacity.parameters:,} parameters"

    def _tables(self) -> Mapping[str, Callable[[], Columns]]:
        return {"loads": self._rows}

    def _rows(self) -> Columns:
        """A row a load: labels offered, steps, bits stored (mean over seeds, by code length)."""
        offered = (*self.capacity.curve, *self.capacity.longer)
        return {
            "examples": [o.examples for o in offered],
            "steps": [o.steps for o in offered],
            "bits": [o.mean()[0] for o in offered],
        }

    def to_dict(self) -> dict[str, Any]:
        """Give plain JSON types.

        Returns:
            Everything measured.
        """
        a = self.architecture
        out: dict[str, Any] = {"architecture": a.name, "shape": list(a.shape), "classes": a.classes}
        out |= asdict(self.capacity)
        out["measurements"] = [m.to_dict() for m in self.measurements]
        if self.forgetting is not None:
            out["forgetting"] = asdict(self.forgetting)
        return out


@dataclass(frozen=True, repr=False)
class CapacityResults(Shown):
    """The capacity of one or several architectures.

    Args:
        task: name of the task whose inputs and classes they take.
        studies: one an architecture, in the order asked for.
    """

    task: str
    studies: tuple[CapacityStudy, ...]

    def _title(self) -> str:
        return f"capacity of {', '.join(s.architecture.name for s in self.studies)}"

    def _tables(self) -> Mapping[str, Callable[[], Columns]]:
        if len(self.studies) == 1:
            return self.studies[0]._tables()
        return {f"loads of {s.architecture.name}": s._rows for s in self.studies}

    @property
    def measurements(self) -> tuple[Measurement, ...]:
        """The measurements of all architectures; of several each name begins with that of its architecture."""
        if len(self.studies) == 1:
            return self.studies[0].measurements
        return tuple(replace(m, name=f"{s.architecture.name}.{m.name}") for s in self.studies for m in s.measurements)

    def to_dict(self) -> dict[str, Any]:
        """Give plain JSON types.

        Returns:
            Everything measured, by architecture.
        """
        return {"task": self.task, "architectures": [s.to_dict() for s in self.studies]}


def architectures(task: Task, widths: tuple[int, ...], depth: int) -> list[Architecture]:
    """Choose the task's own architecture, or fully connected ones of its inputs and classes.

    Args:
        task: of classes, inputs of one tensor.
        widths: of fully connected networks; none: the task's own architecture.
        depth: hidden layers of these.

    Returns:
        One entry a width, or the task's own.

    Raises:
        TaskError: the task does not say how its network is made, or its outputs are no classes.
    """
    x = task.train.batch([0]).x
    first = first_tensor(x)
    with torch.no_grad():
        f = task.model(first.to(task.device, task.dtype)) if isinstance(x, Tensor) and x.is_floating_point() else None
    if f is None or f.dim() != 2 or f.shape[1] < 2 or task.likelihood.classes(f.shape[1]) != f.shape[1]:
        raise TaskError(
            "capacity is measured in labels of classes, with inputs of one tensor of numbers",
            where=task.name,
            remedy="give a task with the categorical law and one prediction an input",
        )
    shape, classes = tuple(first.shape[1:]), f.shape[1]
    if widths:
        sizes = math.prod(shape)
        return [
            Architecture(f"{sizes}{f'-{w}' * depth}-{classes}", mlp(sizes, w, depth, classes), shape, classes)
            for w in widths
        ]
    if task.training is None:
        raise TaskError(
            "the task does not say how its network is made",
            where=task.name,
            remedy="give Task(training=Training(make, recipe)), or --width",
        )
    return [Architecture(task.name, task.training.make, shape, classes)]


def study_capacity(
    architecture: Architecture,
    settings: CapacitySettings,
    *,
    forgetting: bool = False,
    information: bool = True,
    progress: Progress | None = None,
) -> CapacityStudy:
    """Measure the capacity; on the fullest networks the information complexity; on half-full ones the overwriting.

    Args:
        architecture: what to measure.
        settings: loads, seeds and steps.
        forgetting: measure the overwriting.
        information: measure the information complexity.
        progress: told of the work as it goes.

    Returns:
        The measurements.
    """
    progress = progress or Silent()
    a = architecture
    c = measure_capacity(a.make, a.shape, a.classes, settings, progress)
    best = c.best
    bits = c.measurement("capacity.bits")
    per = 1 / c.parameters
    interval = None if bits.interval is None else (bits.interval[0] * per, bits.interval[1] * per)
    measurements = [
        bits,
        Measurement(
            "capacity.bits_per_parameter", bits.value * per, "bits", bits.estimator, bits.n, interval, "",
            bits.reliable, bits.note,
        ),
        c.measurement("capacity.recalled_bits", "recalled"),
    ]  # fmt: skip
    if information:
        measurements += information_of(a, best.examples, best.steps, settings)
    curve = None
    if forgetting:
        first = max(2, round(best.mean()[0] / math.log2(a.classes) / 2))
        second = [max(1, round(share * first)) for share in OVERWRITTEN]
        curve = forgetting_curve(a.make, a.shape, a.classes, first, second, settings, progress)
        measurements += _of_forgetting(curve)
    return CapacityStudy(a, c, tuple(measurements), curve)


def information_of(a: Architecture, examples: int, steps: int, settings: CapacitySettings) -> list[Measurement]:
    """Compute ½ Σ log2(1 + Nλ/α) of one network trained on random labels.

    Args:
        a: the architecture.
        examples: N, number of labels.
        steps: of the training.
        settings: rate and seed.

    Returns:
        Bits at the α of greatest evidence, and at α = P/‖θ‖².
    """
    one = CapacitySettings(settings.load, 1, steps, settings.doublings, settings.rate, settings.seed)
    x, y, index = random_task(a.shape, a.classes, examples, 1, one.seed)
    (model,) = memorise(a.make, x, y, index, one)
    task = Task(model, Data((x, y)))
    space = verified_space(task)
    representation = "dense" if space.size <= DENSE else "ekfac"
    metric = build(task, space, representation)
    theta = space.flat(task.model)
    chosen = DampingChoice.evidence(metric, theta, examples)
    alike = space.size / float(theta.double().square().sum()) / examples
    out = []
    for name, gamma, rule in (
        ("information_evidence", chosen.value, "α of greatest evidence"),
        ("information_scale", alike, "α = P/‖θ‖²: a prior as wide as the weights"),
    ):
        how = f"½ Σ log2(1 + λ/γ), {rule} (γ = α/N = {gamma:.2g}), {representation} Fisher, one network"
        value = information_bits(metric, gamma)
        sure = name != "information_evidence" or "no maximum" not in chosen.statement
        note = "" if sure else chosen.statement
        out.append(Measurement(f"capacity.{name}", value, "bits", how, examples, reliable=sure, note=note))
    return out


def _of_forgetting(curve: Forgetting) -> list[Measurement]:
    _, old = curve.curve()
    k = curve.second.index(curve.first) + 1
    share = old[:, k] / old[:, 0].clip(1e-12)
    half = [h for h in curve.half() if math.isfinite(h)]
    out = [
        Measurement(
            "forgetting.kept",
            float(share.mean()),
            "1",
            f"share of {curve.first} labels' bits left after learning {curve.first} others; {len(share)} seeds",
            curve.first,
            (float(share.min()), float(share.max())) if len(share) > 1 else None,
            note="interval: least and greatest over seeds",
        )
    ]
    if half:
        how = (
            f"new bits stored at which half of the first set's {old[:, 0].mean():.0f} bits are gone; {len(half)} seeds"
        )
        note = "interval: least and greatest over seeds; interpolated"
        out.append(
            Measurement(
                "forgetting.half", sum(half) / len(half), "bits", how, curve.first, (min(half), max(half)), note=note
            )
        )
    return out
