"""The input side of robustness: what the metric predicts for each input, and what attacks and corruptions do."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from memspace.limits import COUNT, SEED
from memspace.measurement import Measurement, Unmeasured, from_samples
from memspace.measures.attack import AttackSearch, Found, minimal_perturbations
from memspace.measures.corruptions import Corrupted, corrupt
from memspace.measures.input_metric import InputReading, input_jacobian, inputs_at, read_inputs, unreadable
from memspace.measures.lipschitz import certified_radius, lipschitz_bound
from memspace.measures.ranks import bootstrap_median, spearman
from memspace.progress import Progress, Silent
from memspace.task.task import Task

__all__ = ["AttackSettings", "InputStudy", "study_inputs"]

STEP = 0.1  # nats: of the predicted divergence at which prediction and measurement are compared


@dataclass(frozen=True)
class AttackSettings:
    """How many inputs are looked at, and how hard.

    Args:
        examples: drawn from the test data, or from the training data where there are none.
        search: how hard to search for each perturbation; its norm, bounds and seed are taken from here.
        both_norms: also perturbations measured by their largest entry.
        clip: keep perturbed inputs within the range of values seen.
        draws: of random corruptions.
    """

    examples: int = 500
    search: AttackSearch = field(default_factory=AttackSearch)
    both_norms: bool = True
    clip: bool = False
    draws: int = 4
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("examples", "draws"):
            COUNT(getattr(self, name), name)
        SEED(self.seed, "seed")


@dataclass(frozen=True)
class InputStudy:
    """What was found.

    Args:
        measurements, unmeasured: with unit, estimator and interval.
        index: which examples of ``data`` ("test" or "training"); ``x``: the inputs themselves.
        reading: the metric at each, or None where it cannot be pulled back to these inputs.
        found, found_max: smallest perturbations by Euclidean length and by largest entry, or None.
        certified: (n,) certified Euclidean radii by the gaps and by the Fisher–Rao distance, or None.
        corruptions: empty where there are no decisions.
        passes: forward and backward passes of single inputs, all together.
    """

    measurements: tuple[Measurement, ...]
    unmeasured: tuple[Unmeasured, ...]
    data: str
    index: Tensor
    x: Tensor | None = None
    reading: InputReading | None = None
    found: Found | None = None
    found_max: Found | None = None
    certified: tuple[Tensor, Tensor] | None = None
    corruptions: tuple[Corrupted, ...] = ()
    passes: int = 0

    def table(self) -> dict[str, list[float]]:
        """A row an example: readings, distances found, certified radii, severities survived."""
        out: dict[str, list[float]] = {"example": self.index.tolist()}
        if self.reading is not None:
            for name in ("top", "trace", "boundary", "fisher", "margin", "linear", "linear_max"):
                out[name] = getattr(self.reading, name).tolist()
        if self.found is not None:
            out["distance"] = self.found.distance.tolist()
        if self.found_max is not None:
            out["distance_max"] = self.found_max.distance.tolist()
        if self.certified is not None:
            out["certified"], out["certified_fisher"] = (c.tolist() for c in self.certified)
        return out | {f"first_{c.corruption.name}": c.first.tolist() for c in self.corruptions}


def study_inputs(task: Task, settings: AttackSettings, progress: Progress | None = None) -> InputStudy:
    """Read the metric at inputs, attack and corrupt them, and compare example by example."""
    data, word = (task.test, "test") if task.test is not None else (task.train, "training")
    generator = torch.Generator().manual_seed(settings.seed)
    index = torch.randperm(len(data), generator=generator)[: settings.examples].sort().values
    why = unreadable(task)
    if why is not None:
        return InputStudy((), (why,), word, index)
    progress = progress or Silent()
    x = inputs_at(task, data, index)
    reading = read_inputs(task, x, progress)
    passes = len(x) * (1 + reading.f.shape[-1]) // 2
    study = InputStudy(tuple(_of_metric(task, x, reading)), (), word, index, x, reading, passes=passes)
    if task.likelihood.boundary is None:
        kind = "have no known boundary" if task.likelihood.classifies else "are numbers, not decisions"
        law = f"predictions of the {task.likelihood.name} law {kind}"
        return replace(study, unmeasured=(Unmeasured("input.distance", law, "read λ_max of the input metric instead"),))
    bounds = (float(x.min()), float(x.max())) if settings.clip else None
    how = replace(settings.search, norm=2.0, bounds=bounds, seed=settings.seed)
    found = minimal_perturbations(task, x, reading, how, progress)
    found_max = None
    if settings.both_norms:
        found_max = minimal_perturbations(task, x, reading, replace(how, norm=math.inf), progress)
    made = corrupt(task, x, reading.decision, draws=settings.draws, seed=settings.seed, progress=progress)
    forwards = len(x) * sum(len(c.corruption.severities) * (settings.draws if c.corruption.random else 1) for c in made)
    passes += found.passes + (0 if found_max is None else found_max.passes) + forwards // 3
    bound = lipschitz_bound(task, x[:1])
    certified = None
    unmeasured: tuple[Unmeasured, ...] = ()
    if isinstance(bound, str):
        unmeasured = (Unmeasured("input.certified", bound, "a Sequential of plain layers has one"),)
    else:
        certified = certified_radius(task.likelihood.boundary, bound, reading.margin, reading.boundary)
    full = replace(
        study,
        unmeasured=unmeasured,
        found=found,
        found_max=found_max,
        certified=certified,
        corruptions=made,
        passes=passes,
    )
    return replace(full, measurements=(*full.measurements, *_of_distances(full, settings.seed)))


def _of_metric(task: Task, x: Tensor, r: InputReading) -> list[Measurement]:
    """λ_max, trace, and how well ½ dᵀGd predicts the divergence a step along the weakest direction makes."""
    how = "exact, C backward passes an input and the C × C dual"
    size = torch.sqrt(2 * STEP / r.top.clamp_min(1e-300))
    reach = size.isfinite() & (r.top > 1e-8 * r.top.max())
    shape = (-1,) + (1,) * (x.dim() - 1)
    f, _ = input_jacobian(task, x[reach] + size[reach].reshape(shape).to(x) * r.direction[reach], rows=0)
    ratio = task.likelihood.kl(r.f[reach], f.double()) / STEP
    middle, interval = bootstrap_median(ratio.cpu().numpy()) if len(ratio) else (math.nan, None)
    return [
        from_samples("input.lambda_max", r.top, "nats per squared input unit", how, lower=0.0),
        from_samples("input.trace", r.trace, "nats per squared input unit", how, lower=0.0),
        Measurement(
            "input.kl_ratio",
            middle,
            "1",
            f"median over examples of measured over predicted KL, {STEP} nats predicted, along the weakest direction",
            len(ratio),
            interval,
        ),
    ]


def _of_distances(s: InputStudy, seed: int) -> list[Measurement]:
    assert s.reading is not None
    assert s.found is not None
    out: list[Measurement] = []
    r = s.reading
    pairs = [("l2", s.found, r.linear)]
    if s.found_max is not None:
        pairs.append(("max", s.found_max, r.linear_max))
    for norm, found, linear in pairs:
        distance = found.distance.cpu().numpy()
        missed = int(found.distance.isinf().sum())
        note = f"none found for {missed} examples: counted as farthest" if missed else ""
        middle, interval = bootstrap_median(distance, seed)
        attack = "projected gradient descent, radius bisected: an upper bound"
        out.append(
            Measurement(f"input.distance_{norm}", middle, "input units", f"median; {attack}", len(distance), interval)
        )
        share, around = bootstrap_median((found.distance / linear).cpu().numpy(), seed)
        label = f"input.distance_{norm}.over_linear"
        out.append(Measurement(label, share, "1", "median of measured over linearised distance", len(distance), around))
        readings = {
            "linear": linear,
            "fisher": r.fisher,
            "margin": r.margin,
            "boundary": r.boundary,
            "flatness": -r.top,
        }
        for name, reading in readings.items():
            value, band = spearman(reading.cpu().numpy(), distance, seed)
            label = f"input.distance_{norm}.rank_{name}"
            rule = f"Spearman ρ with the measured distance, {READINGS[name]}; bootstrap over examples"
            out.append(Measurement(label, value, "1", rule, len(distance), band, note=note))
    if s.certified is not None:
        gap = s.certified[0]
        rule = "median radius that no perturbation crosses: gap over √2 × the product of the layers' norms"
        middle, interval = bootstrap_median(gap.cpu().numpy(), seed)
        out.append(Measurement("input.certified", middle, "input units", rule, len(gap), interval))
    distance = s.found.distance.cpu().numpy()
    for c in s.corruptions:
        first = c.first.cpu().numpy()
        for name, predicted in (
            ("linear", r.linear.cpu().numpy()),
            ("fisher", r.fisher.cpu().numpy()),
            ("attack", distance),
        ):
            value, band = spearman(predicted, first, seed)
            what = "the measured smallest perturbation" if name == "attack" else READINGS[name]
            rule = f"Spearman ρ of {what} with the first severity of {c.corruption.name} that changes the decision"
            label = f"input.{c.corruption.name}.rank_{name}"
            known = math.isfinite(value)
            note = "" if known else "no example's decision changes earlier than another's"
            out.append(Measurement(label, value, "1", rule, len(first), band, reliable=known, note=note))
    return out


READINGS = {
    "linear": "the linearised distance min gap/‖∇gap‖",
    "fisher": "Fisher–Rao distance to the boundary over √λ_max(G)",
    "margin": "the smallest gap of the outputs",
    "boundary": "the Fisher–Rao distance to the boundary alone",
    "flatness": "−λ_max(G) alone",
}
