"""What a network loses with the detectors of a concept, against as many other units (Bau et al. 2020).

Units are chosen on one half of the examples, and the loss is measured on the other: of accuracy where examples have
labels of classes, of the decisions kept where they have none, in nats where labels are no classes.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from memspace.measures.correct import correct
from memspace.progress import Progress, Silent
from memspace.reading.unit_signals import BATCH, LayerPlace, silenced
from memspace.task.checks import evaluating
from memspace.task.data import Data, call_model, move
from memspace.task.task import Task
from memspace.value import Value

__all__ = ["Ablation", "AblationPlan", "ConceptAblation", "ablate"]

RESAMPLES = 1000

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class AblationPlan:
    """Which units are set to which values, and on what the loss is measured.

    Args:
        units: name of a concept → its units, numbers in the layer.
        others: units that vary, from which controls are drawn.
        value: (U,) what each unit of the layer is set to.
        data: the examples.
        index: (m,) which of them.
        f: (m, ..., C) outputs of the network as it is.
        y: labels; None where there are none.
        has: name of a concept → (m,) or (m, *positions), bool.
        draws: controls of each concept.
        seed: of the controls and resamples.
    """

    units: Mapping[str, tuple[int, ...]]
    others: tuple[int, ...]
    value: Tensor
    data: Data
    index: Tensor
    f: Tensor
    y: Tensor | None
    has: Mapping[str, Tensor]
    draws: int
    seed: int


@dataclass(frozen=True)
class ConceptAblation:
    """What is lost with the units of a concept.

    Args:
        concept: its name.
        units: numbers of the units.
        present: loss on examples (or positions) that have the concept.
        absent: loss on the others; None where fewer than two examples lack it.
        control: loss on those that have it with as many other units instead, mean of the draws; None where there are
            too few others.
    """

    concept: str
    units: tuple[int, ...]
    present: Value
    absent: Value | None
    control: Value | None


@dataclass(frozen=True)
class Ablation:
    """What is lost with the units of each concept, and on average over concepts.

    Args:
        rows: a concept each.
        present: mean loss on examples with the concept.
        absent: mean loss on the others; None where no concept leaves any.
        specific: the first less the second, over concepts that have both.
        control: mean loss on examples with the concept, with other units; None without controls.
        beyond: loss with the detectors less that with other units; None without controls.
        what: is lost, for people.
        unit: of all these.
    """

    rows: tuple[ConceptAblation, ...]
    present: Value
    absent: Value | None
    specific: Value | None
    control: Value | None
    beyond: Value | None
    what: str
    unit: str


@dataclass(frozen=True)
class _Sums:
    """Sums over the positions of each example: what is lost, and how many positions count."""

    lost: Floats  # (..., m)
    count: Floats  # (m,)

    @property
    def several(self) -> bool:
        """Whether two or more examples count."""
        return int((self.count > 0).sum()) > 1

    def value(self) -> tuple[float, float]:
        """Ratio of sums and its standard error over examples."""
        m, total = len(self.count), max(float(self.count.sum()), 1.0)
        ratio = float(self.lost.sum()) / total
        spread = float(np.square(self.lost - ratio * self.count).sum()) * m / max(m - 1, 1)
        return ratio, math.sqrt(spread) / total


def ablate(task: Task, place: LayerPlace, plan: AblationPlan, progress: Progress | None = None) -> Ablation:
    """Set the units of each concept to constants, and as many others, and measure what the network loses.

    Args:
        task: the network; not changed.
        place: of the layer.
        plan: of what is done.
        progress: notified of every run; None: silent.

    Returns:
        losses with intervals over examples.
    """
    jobs = list(_jobs(plan))
    tracked = (progress or Silent()).track(jobs, "ablation", len(jobs))
    before, weight = _outcome(task, plan, plan.f)
    lost: dict[str, list[Tensor]] = {name: [] for name in plan.units}
    for name, units in tracked:
        after, _ = _outcome(task, plan, _outputs(task, place, plan, units))
        lost[name].append(before - after)
    made = {name: _summed(plan.has[name], ls, weight) for name, ls in lost.items()}
    shares = task.likelihood.classifies
    rows = tuple(_row(name, plan, made[name], shares) for name in plan.units)
    what = "log-likelihood"
    if shares:
        what = "accuracy" if plan.y is not None else "agreement with its own decisions"
    return _mean(rows, list(made.values()), plan, what, "1" if shares else "nats")


def _jobs(plan: AblationPlan) -> Iterator[tuple[str, tuple[int, ...]]]:
    """The units of each concept, followed by its controls."""
    generator = np.random.default_rng(plan.seed + 73)
    for name, units in plan.units.items():
        yield name, units
        others = sorted(set(plan.others) - set(units))
        if len(others) >= len(units):
            for _ in range(plan.draws):
                yield name, tuple(generator.choice(others, len(units), replace=False).tolist())


def _outputs(task: Task, place: LayerPlace, plan: AblationPlan, units: tuple[int, ...]) -> Tensor:
    fs = []
    chosen = torch.tensor(units)
    with (
        torch.no_grad(),
        evaluating(task.model),
        silenced(task.model, place, chosen, plan.value[chosen]),
    ):
        for part in torch.split(plan.index, BATCH):
            fs.append(call_model(task.model, move(plan.data.inputs(part), task.device, task.dtype)))
    return torch.cat(fs)


def _outcome(task: Task, plan: AblationPlan, f: Tensor) -> tuple[Tensor, Tensor]:
    """What the network gets right at each position, (m, ...), and which positions count."""
    law, intact = task.likelihood, plan.f
    if plan.y is not None:
        right = correct(law, f, plan.y) if law.classifies else -law.nll(f, plan.y)
        return right.double().cpu(), law.weight(f, plan.y).double().cpu()
    if law.classifies:
        same = law.hits(f, law.predict(intact))
        right = same.mean(-1) if same.dim() == f.dim() else same
    else:
        right = -law.kl(intact, f)
    return right.double().cpu(), torch.ones_like(right, dtype=torch.float64, device="cpu")


def _summed(has: Tensor, lost: list[Tensor], weight: Tensor) -> tuple[_Sums, _Sums]:
    """Losses where the concept is and where it is not, the units' own first, then those of the controls."""
    table, w = torch.stack(lost), weight
    if has.shape != w.shape:  # concepts of whole examples, or of other positions than the outputs'
        has = has.flatten(1).any(1) if has.dim() > 1 else has
        has = has.reshape(-1, *[1] * (w.dim() - 1)).expand_as(w)
    parts = []
    for where in (has, ~has):
        counted = (w * where).flatten(1).sum(1) if w.dim() > 1 else w * where
        values = table * w * where
        values = values.flatten(2).sum(2) if w.dim() > 1 else values
        parts.append(_Sums(values.numpy(), counted.numpy()))
    return parts[0], parts[1]


def _row(name: str, plan: AblationPlan, sums: tuple[_Sums, _Sums], shares: bool) -> ConceptAblation:
    present = _value(sums[0], 0, shares)
    absent = _value(sums[1], 0, shares) if sums[1].several else None
    control = _control(sums[0], shares) if len(sums[0].lost) > 1 else None
    return ConceptAblation(name, plan.units[name], present, absent, control)


def _value(sums: _Sums, job: int, shares: bool) -> Value:
    """A loss with its interval; of 0 and 1 never of width 0."""
    rows = sums.count > 0
    lost, count = sums.lost[job][rows], sums.count[rows]
    if shares and bool((count == 1).all()):
        return Value.change(np.zeros_like(lost), lost)
    ratio, error = _Sums(lost, count).value()
    n = len(lost)
    return _with_error(ratio, max(error, 1 / n if shares else 0.0), n, shares, n - 1)


def _control(sums: _Sums, shares: bool) -> Value:
    """Mean over draws; its error is that of the examples and that of the draws."""
    rows = sums.count > 0
    lost, count = sums.lost[1:][:, rows], sums.count[rows]
    ratio, error = _Sums(lost.mean(0), count).value()
    n = len(count)
    error, df = _with_draws(max(error, 1 / n if shares else 0.0), lost.sum(1) / count.sum())
    return _with_error(ratio, error, n, shares, df)


def _with_draws(error: float, draws: Floats) -> tuple[float, float]:
    """An error of examples and that of the mean of some draws together, with Satterthwaite's degrees of freedom."""
    drawn = float(draws.var(ddof=1)) / len(draws)
    total = error**2 + drawn
    return math.sqrt(total), math.inf if drawn == 0 else (len(draws) - 1) * (total / drawn) ** 2


def _with_error(value: float, error: float, n: int, shares: bool, df: float | None = None) -> Value:
    end = 1.0 if shares else math.inf
    return Value.with_error(value, error, n, df=df, lower=-end, upper=end)


def _mean(
    rows: tuple[ConceptAblation, ...], sums: list[tuple[_Sums, _Sums]], plan: AblationPlan, what: str, unit: str
) -> Ablation:
    """Means over concepts, with errors by bootstrap over examples."""
    m = len(plan.index)
    generator = np.random.default_rng(plan.seed + 79)
    weights = generator.multinomial(m, np.full(m, 1 / m), size=RESAMPLES).astype(np.float64)
    weights = np.concatenate([np.ones((1, m)), weights])  # the examples themselves first
    floor = 1 / m if unit == "1" else 0.0

    def ratio(lost: Floats, count: Floats) -> Floats:
        """Mean losses of every resample, (..., 1 + RESAMPLES)."""
        return np.asarray(lost @ weights.T / np.maximum(weights @ count, 1e-9))

    def value(samples: Floats, draws: Floats | None = None) -> Value:
        error = max(float(samples[1:].std(ddof=1)), floor)
        df = None
        if draws is not None:
            error, df = _with_draws(error, draws)
        return _with_error(float(samples[0]), error, m, unit == "1", df)

    present = [ratio(s.lost[0], s.count) for s, _ in sums]
    both = [(p, ratio(s.lost[0], s.count)) for p, (_, s) in zip(present, sums, strict=True) if s.several]
    with_control = [(p, ratio(s.lost[1:], s.count)) for p, (s, _) in zip(present, sums, strict=True) if len(s.lost) > 1]
    absent = specific = control = beyond = None
    if both:
        absent = value(np.mean([a for _, a in both], 0))
        specific = value(np.mean([p - a for p, a in both], 0))
    if with_control:
        table = np.mean([c for _, c in with_control], 0)  # draws by resamples
        control = value(table.mean(0), table[:, 0])
        beyond = value(np.mean([p for p, _ in with_control], 0) - table.mean(0), table[:, 0])
    return Ablation(rows, value(np.mean(present, 0)), absent, specific, control, beyond, what, unit)
