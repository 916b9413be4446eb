"""The input side of robustness: what the metric predicts for each input, and what attacks and corruptions do."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Annotated

import torch
from torch import Tensor

from memspace.arguments import check_fields
from memspace.display import Columns, Shown
from memspace.limits import COUNT, RANKED, SEED
from memspace.measurement import Measurement, Unmeasured
from memspace.measures.attack import AttackSearch, Found, minimal_perturbations
from memspace.measures.corruptions import Corrupted, corrupt
from memspace.measures.input_metric import InputReading, input_jacobian, inputs_at, read_inputs, unreadable
from memspace.measures.lipschitz import certified_radius, lipschitz_bound
from memspace.progress import Progress
from memspace.task.task import Task
from memspace.value import Absent

__all__ = ["STEP", "AttackSettings", "InputStudy", "probed_inputs"]

STEP = 0.1  # nats: of the predicted divergence at which prediction and measurement are compared


@dataclass(frozen=True)
class AttackSettings:
    """How many inputs are read, and how hard each is attacked.

    Args:
        examples: drawn from the test data, or from the training data where there are none.
        search: effort of each search; its norm, bounds and seed are set from here.
        both_norms: also search perturbations measured by their largest entry.
        clip: restrict perturbed inputs to the range of values that occur in the data.
        draws: of random corruptions.
        seed: random seed.
    """

    examples: Annotated[int, RANKED] = 500
    search: AttackSearch = field(default_factory=AttackSearch)
    both_norms: bool = True
    clip: bool = False
    draws: Annotated[int, COUNT] = 4
    seed: Annotated[int, SEED] = 0

    def __post_init__(self) -> None:
        check_fields(self)


@dataclass(frozen=True, repr=False)
class InputStudy(Shown):
    """What was found.

    Args:
        data: ``"test"`` or ``"training"``.
        index: (n,) which of its examples.
        seed: of intervals by bootstrap.
        x: the inputs themselves.
        reading: the metric at each, or None where it cannot be pulled back to these inputs.
        unreadable: why not.
        step_ratio: (m,) measured over predicted divergence of a small step along the weakest direction.
        found: smallest perturbations by Euclidean length, or None where there are no decisions.
        found_max: the same by largest entry, or None where that was not asked for.
        certified: (n,) certified Euclidean radii by the gaps and by the Fisher–Rao distance, or why there are none.
        corruptions: empty where there are no decisions.
        passes: forward and backward passes of single inputs, all together.
        measurements: with unit, estimator and interval.
        unmeasured: what is absent, and why.
    """

    data: str
    index: Tensor
    seed: int
    x: Tensor | None = None
    reading: InputReading | None = None
    unreadable: Absent = field(default_factory=Absent)
    step_ratio: Tensor | None = None
    found: Found | None = None
    found_max: Found | None = None
    certified: tuple[Tensor, Tensor] | Absent = field(default_factory=Absent)
    corruptions: tuple[Corrupted, ...] = ()
    passes: int = 0
    measurements: tuple[Measurement, ...] = ()
    unmeasured: tuple[Unmeasured, ...] = ()

    def _title(self) -> str:
        return f"{len(self.index)} {self.data} examples"

    def _tables(self) -> Mapping[str, Callable[[], Columns]]:
        return {"examples": self.table}

    def table(self) -> dict[str, list[float]]:
        """Return one row per example: metric, distances, certified radii, severities survived.

        Returns:
            column → values.
        """
        out: dict[str, list[float]] = {"example": self.index.tolist()}
        if self.reading is not None:
            for name in ("top", "trace", "boundary", "fisher", "margin", "linear", "linear_max"):
                out[name] = getattr(self.reading, name).tolist()
        if self.found is not None:
            out["distance"] = self.found.distance.tolist()
        if self.found_max is not None:
            out["distance_max"] = self.found_max.distance.tolist()
        if not isinstance(self.certified, Absent):
            out["certified"], out["certified_fisher"] = (c.tolist() for c in self.certified)
        return out | {f"first_{c.corruption.name}": c.first.tolist() for c in self.corruptions}


def probed_inputs(task: Task, settings: AttackSettings, progress: Progress) -> InputStudy:
    """Read the metric at inputs, attack and corrupt them; numbers are made of it in ``measures.input_measures``.

    Args:
        task: inputs are drawn from its test data, or from the training data where there are none.
        settings: how many inputs, and how hard to search.
        progress: where the work reports.

    Returns:
        what was found, without measurements.
    """
    data, word = (task.test, "test") if task.test is not None else (task.train, "training")
    generator = torch.Generator().manual_seed(settings.seed)
    index = torch.randperm(len(data), generator=generator)[: settings.examples].sort().values
    study = InputStudy(word, index, settings.seed)
    why = unreadable(task)
    if why is not None:
        return replace(study, unreadable=Absent(why.reason, why.remedy))
    x = inputs_at(task, data, index)
    reading = read_inputs(task, x, progress)
    passes = len(x) * (1 + reading.f.shape[-1]) // 2
    study = replace(study, x=x, reading=reading, step_ratio=_step_ratio(task, x, reading), passes=passes)
    return study if task.likelihood.boundary is None else _attacked(task, study, settings, progress)


def _attacked(task: Task, study: InputStudy, settings: AttackSettings, progress: Progress) -> InputStudy:
    """The study with smallest perturbations, certified radii and corruptions."""
    x, reading, boundary = study.x, study.reading, task.likelihood.boundary
    assert x is not None
    assert reading is not None
    assert boundary is not None
    bounds = (float(x.min()), float(x.max())) if settings.clip else None
    search = replace(settings.search, norm=2.0, bounds=bounds, seed=settings.seed)
    smallest = minimal_perturbations(task, x, reading, search, progress)
    found_max = None
    if settings.both_norms:
        found_max = minimal_perturbations(task, x, reading, replace(search, norm=math.inf), progress)
    corrupted = corrupt(task, x, reading.decision, draws=settings.draws, seed=settings.seed, progress=progress)
    runs = sum(len(c.corruption.severities) * (settings.draws if c.corruption.random else 1) for c in corrupted)
    passes = study.passes + smallest.passes + (0 if found_max is None else found_max.passes) + len(x) * runs // 3
    bound = lipschitz_bound(task, x[:1])
    certified: tuple[Tensor, Tensor] | Absent = Absent()
    if isinstance(bound, str):
        certified = Absent(bound, "a Sequential of plain layers has one")
    else:
        certified = certified_radius(boundary, bound, reading.margin, reading.boundary)
    return replace(
        study, found=smallest, found_max=found_max, certified=certified, corruptions=corrupted, passes=passes
    )


def _step_ratio(task: Task, x: Tensor, reading: InputReading) -> Tensor:
    """Measured over predicted divergence of a step of ½ dᵀGd = :data:`STEP` along the weakest direction, (m,)."""
    size = torch.sqrt(2 * STEP / reading.top.clamp_min(1e-300))
    reach = size.isfinite() & (reading.top > 1e-8 * reading.top.max())
    shape = (-1,) + (1,) * (x.dim() - 1)
    step = size[reach].reshape(shape).to(x) * reading.direction[reach]
    f, _ = input_jacobian(task, x[reach] + step, rows=0)
    return task.likelihood.kl(reading.f[reach], f.double()) / STEP
