"""The action of a recorded training, and how far it is from least action.

Along natural-gradient flow θ̇ = −F⁻¹∇L the action spent equals the loss bought. For any path the energy–dissipation
excess ∫(½‖θ̇‖²_F + ½‖∇L‖²_{F⁻¹}) dt − (L(0) − L(T)) is non-negative. It depends on the clock; its least value over
all clocks, ∫‖θ̇‖_F ‖∇L‖_{F⁻¹} dt − (L(0) − L(T)), does not, and is the principal number here: zero exactly on paths
that follow the natural gradient, at whatever speed.

Speed, slope and loss of the excess are all taken on one set of examples: on different ones it need not be positive.
Damping lowers the slope, hence the excess; what ten times the damping would change is said with the number.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from memspace.action.clock import no_time
from memspace.action.drift import LEAST, readings_along
from memspace.action.excess import SpentPath, excess, excess_in_time, windows
from memspace.action.lengths import bought, clocked_action, lengths
from memspace.action.slope import MAX_ROWS, Slope, affordable, probe_dual, slope
from memspace.action.windows import Drift, Readings
from memspace.display import Columns, Shown
from memspace.geometry.distance import squared_distances
from memspace.geometry.path import outputs_along, straight_line, walk
from memspace.measurement import Measurement, Unmeasured
from memspace.passes.outputs import outputs
from memspace.passes.space import ParameterSpace
from memspace.progress import Progress
from memspace.task.checks import holding
from memspace.task.task import Run, Task

__all__ = ["TrainingAction", "slope", "training_action"]

LINE_POINTS = 33
PROBE, SLOPE_PROBE = 512, 96  # examples that predictions are followed on, and that the slope is computed on
DAMPING = 1e-6  # of tr F, at each checkpoint
LEAST_PROBE = 8  # examples below which a slope is not worth stating


@dataclass(frozen=True, repr=False)
class TrainingAction(Shown):
    """What was measured along a run; arrays are per checkpoint, for plotting.

    Args:
        measurements: of the whole path.
        unmeasured: what could not be measured, with the reason.
        time: recorded time.
        step: optimiser steps.
        loss: nats per example.
        length: travelled so far without noise, nats^½.
        slope: ‖∇L‖_{F⁻¹}, nats^½ (empty: unmeasured).
        speed: length per learning-rate time up to each checkpoint (NaN at the first).
        segments: per stretch of the drift, column → values: ``step_from``, ``step_to``, ``length``, ``bought`` and,
            where the slope is measured, ``excess`` (on its own examples; they sum to the excess) with its numerical
            ``error``: what noise, leaving out checkpoints and the damping may have moved.
    """

    measurements: tuple[Measurement, ...]
    unmeasured: tuple[Unmeasured, ...]
    time: tuple[float, ...] = ()
    step: tuple[int, ...] = ()
    loss: tuple[float, ...] = ()
    length: tuple[float, ...] = ()
    slope: tuple[float, ...] = ()
    speed: tuple[float, ...] = ()
    segments: Mapping[str, tuple[float, ...]] = field(default_factory=dict)

    def _title(self) -> str:
        return f"a training recorded at {len(self.step)} checkpoints"

    def _tables(self) -> Mapping[str, Callable[[], Columns]]:
        return {"checkpoints": self._rows, "segments": lambda: self.segments}

    def _rows(self) -> Columns:
        """A row a checkpoint; a quantity that was not measured has no column."""
        columns = {name: getattr(self, name) for name in ("step", "time", "loss", "length", "slope", "speed")}
        return {name: column for name, column in columns.items() if len(column) == len(self.step)}


def training_action(
    task: Task,
    *,
    probe: int = PROBE,
    slope_probe: int = SLOPE_PROBE,
    line: int = LINE_POINTS,
    seed: int = 0,
    progress: Progress,
    space: ParameterSpace | None = None,
    memory: int = 2**30,
) -> TrainingAction:
    """Measure length, action, loss bought and action excess of ``task.run``, on a random probe set of training examples.

    Args:
        task: the model, its law, data and recorded training.
        probe: number of examples predictions are followed on; lowered to what ``memory`` holds.
        slope_probe: number of examples the slope ‖∇L‖_{F⁻¹} is computed on; lowered alike. 0: no excess.
        line: number of points on the straight line in the weights; 0: it is not followed.
        seed: of the choice of examples.
        progress: told of the work as it goes.
        space: the parameter layout, where some layers are to be differentiated example by example.
        memory: bytes.

    Returns:
        Measurements, and what could not be measured.
    """
    run = task.run
    if run is None or len(run.states) < 3:
        recorded = "no checkpoints" if run is None else f"only {len(run.states)} checkpoints"
        remedy = "record some: Task(run=Run(states, time, step))"
        return TrainingAction((), (Unmeasured("action", f"{recorded} of the training were recorded", remedy),))
    generator = torch.Generator().manual_seed(seed + 9)
    path = _followed(task, run, probe, generator, memory, progress)
    measurements, unmeasured = _lengths(task, run, path, line, progress)
    drift, loss = path.readings.best, path.loss
    segments = {
        "step_from": tuple(float(run.step[w.start]) for w in drift.windows),
        "step_to": tuple(float(run.step[w.end]) for w in drift.windows),
        "length": tuple(w.length for w in drift.windows),
        "bought": tuple(float((loss[w.start] - loss[w.end]).mean()) for w in drift.windows),
    }
    space = ParameterSpace.of(task) if space is None else space
    count, rows = _affordable(task, space, path, slope_probe, memory)
    chosen = torch.randperm(len(path.index), generator=generator)[: min(slope_probe, count)].sort().values
    slopes: tuple[Slope, ...] = ()
    why_not = _no_excess(task, run, space, chosen, rows, asked=slope_probe > 0)
    if why_not is not None:
        unmeasured.append(why_not)
    else:
        read = _slopes(task, space, run.states, path.index[chosen], progress)
        slopes = tuple(r.slope for r in read)
        made, absent, parts = _excess(run, space, path, chosen, read)
        measurements += made
        unmeasured += absent
        segments |= {name: tuple(parts[name].tolist()) for name in ("excess", "error")}
    travelled = _travelled(drift, path.readings.enough, run.step)
    return TrainingAction(
        measurements=tuple(measurements),
        unmeasured=tuple(unmeasured),
        time=run.time,
        step=run.step,
        loss=tuple(loss.mean(1).tolist()),
        length=tuple(travelled),
        slope=tuple(s.value for s in slopes),
        speed=(float("nan"), *_speeds(travelled, run.time)),
        segments=segments,
    )


@dataclass(frozen=True)
class _Followed:
    """The path through predictions on the probe examples at ``index``."""

    index: Tensor
    f: Tensor  # (S, n, ..., C)
    weight: Tensor
    loss: Tensor  # (S, n)
    readings: Readings


def _followed(
    task: Task, run: Run, probe: int, generator: torch.Generator, memory: int, progress: Progress
) -> _Followed:
    """Follow the predictions of as many examples as asked for, or as memory holds."""
    law = task.likelihood
    order = torch.randperm(len(task.train), generator=generator)
    example, _ = outputs(task, task.train, index=order[:1])
    fits = memory // (24 * example.numel() * max(len(run.states), LINE_POINTS))
    index = order[: max(2, min(probe, fits))].sort().values
    f, y = outputs_along(task, run.states, index, progress, "following the training path")
    weight = law.weight(f[0], y)
    loss = torch.stack([_per_example(law.nll(x, y)) for x in f])
    return _Followed(index, f, weight, loss, readings_along(law, f, run.step, weight, run.one_step))


def _affordable(task: Task, space: ParameterSpace, path: _Followed, slope_probe: int, memory: int) -> tuple[int, int]:
    """Examples that the slope can be computed on, and the Jacobian rows of each; read only where there can be some."""
    rows = path.f[0, 0].numel()
    if not slope_probe or MAX_ROWS // rows < min(LEAST_PROBE, len(task.train)):
        return MAX_ROWS // rows, rows
    return affordable(task, space, path.index, memory)


def _lengths(
    task: Task, run: Run, path: _Followed, points: int, progress: Progress
) -> tuple[list[Measurement], list[Unmeasured]]:
    """Lengths of the path and of the straight line, the loss bought, and the action in the recorded time."""
    law, f, count, readings = task.likelihood, path.f, len(run.states), path.readings
    recorded = walk(law, f, path.weight)
    line = None
    if points:
        line_states = straight_line(run.states[0], run.states[-1], points)
        line_f, _ = outputs_along(task, line_states, path.index, progress, "straight line")
        line = walk(law, line_f, path.weight)
    ends = squared_distances(law, f[0], f[-1], path.weight)
    measurements, unmeasured = lengths(recorded, line, ends, count, readings)
    measurements.append(bought(path.loss))
    if not readings.enough:
        unmeasured.append(
            Unmeasured(
                "action.drift_length",
                f"{count} checkpoints, or steps that do not increase, cannot tell drift from noise",
                f"record at least {LEAST} checkpoints with their steps",
            )
        )
    if _ticking(run):
        measurements.append(clocked_action(recorded, readings, run.time, count))
    else:
        unmeasured.append(
            Unmeasured(
                "action.learning_rate_time",
                "the recorded times do not increase from checkpoint to checkpoint",
                "record the sum of learning rates at each checkpoint: Run(time=...)",
            )
        )
    return measurements, unmeasured


def _ticking(run: Run) -> bool:
    return all(b > a for a, b in itertools.pairwise(run.time))


def _no_excess(
    task: Task, run: Run, space: ParameterSpace, chosen: Tensor, rows: int, *, asked: bool
) -> Unmeasured | None:
    """Why the excess cannot be stated, if so."""
    if moved := _moved_outside(task.model, space, run.states):
        return Unmeasured(
            "action.excess",
            f"training also moved parameters that are not audited ({moved[0]}{', ...' if len(moved) > 1 else ''}): "
            "what it bought was not bought by the others alone",
            "audit all parameters that were trained",
        )
    if not asked:
        remedy = f"ask for {LEAST_PROBE} examples or more that the slope is computed on"
        return Unmeasured("action.excess", "no example was asked for that its slope is computed on", remedy)
    if len(chosen) < min(LEAST_PROBE, len(task.train)):
        return Unmeasured(
            "action.excess",
            f"an example's slope needs {rows:,} Jacobian rows: memory and time allow {len(chosen)} examples, "
            f"{LEAST_PROBE} are needed",
            "raise the memory budget, or use a model with fewer outputs per example",
        )
    return None


def _excess(
    run: Run, space: ParameterSpace, path: _Followed, chosen: Tensor, read: Sequence[_Read]
) -> tuple[list[Measurement], list[Unmeasured], dict[str, Tensor]]:
    """The excess over all clocks and, where the recorded time is one, in that time; and its parts by window."""
    at = tuple(map(float, run.step if path.readings.enough else range(len(run.step))))
    slopes = tuple(r.slope for r in read)
    spent = SpentPath(path.readings.on(chosen.to(path.f.device)), slopes, at, path.loss[:, chosen].cpu())
    far = _moved(space, run.states, path.readings.best)
    parts = windows(spent, spent.loss.mean(1), spent.readings.best, far, [r.damping for r in read])
    measurements, unmeasured = excess(spent, parts)
    if _ticking(run):
        why = no_time([r.rate for r in read], run.time, spent.loss.mean(1), run.optimiser)
        if why:
            remedy = "compare by action.excess, which knows no clock; plain gradient descent says so by "
            remedy += 'Run(optimiser="SGD")'
            unmeasured.append(Unmeasured("action.excess_learning_rate_time", why, remedy))
        else:
            measurements.append(excess_in_time(spent, run.time))
    return measurements, unmeasured, parts


def _speeds(travelled: Sequence[float], time: Sequence[float]) -> list[float]:
    """Length per recorded time between checkpoints, (S−1); NaN where time stands still."""
    pairs = zip(itertools.pairwise(travelled), itertools.pairwise(time), strict=True)
    return [(y - x) / (b - a) if b > a else float("nan") for (x, y), (a, b) in pairs]


def _travelled(drift: Drift, timed: bool, step: Sequence[int]) -> list[float]:
    """Length without noise up to each checkpoint; inside a window it grows with the steps."""
    out = [0.0]
    for w in drift.windows:
        first, last = (step[w.start], step[w.end]) if timed else (w.start, w.end)
        begun = out[-1]
        out += [begun + w.length * ((step[k] if timed else k) - first) / (last - first) for k in w.nodes[1:]]
    return out


def _per_example(values: Tensor) -> Tensor:
    return values.flatten(1).sum(1) if values.dim() > 1 else values


@dataclass(frozen=True)
class _Read:
    """What one checkpoint's dual gave."""

    slope: Slope
    damping: float
    rate: float  # ‖∇L‖² over all training examples


def _slopes(
    task: Task, space: ParameterSpace, states: Sequence[dict[str, Tensor]], index: Tensor, progress: Progress
) -> list[_Read]:
    """The slope at every checkpoint, the damping it was taken at, and how fast the loss falls."""
    out = []
    for state in progress.track(states, "slope at every checkpoint", len(states)):
        with holding(task.model, state):
            dual = probe_dual(task, space, index)
        damping = DAMPING * max(dual.trace, 1e-300)
        slope = dual.slope(damping)
        out.append(_Read(slope, damping, dual.squared_gradient(len(task.train))))
    return out


def _moved(space: ParameterSpace, states: Sequence[Mapping[str, Tensor]], drift: Drift) -> Tensor:
    """‖Δθ‖² over each window, (W,) float64; each state is read once."""
    ends = [drift.windows[0].start, *(w.end for w in drift.windows)]
    flat = (space.pack({n: states[k][n].detach() for n in space.names}).double() for k in ends)
    return torch.stack([(b - a).square().sum() for a, b in itertools.pairwise(flat)]).cpu()


def _moved_outside(model: nn.Module, space: ParameterSpace, states: Sequence[dict[str, Tensor]]) -> list[str]:
    """Parameters outside the space that differ between checkpoints."""
    outside = [n for n, _ in model.named_parameters() if n not in space.names]
    last = {n: t for n, t in states[-1].items() if n in outside}
    moved = {n for s in states if outside for n in outside if not torch.equal(s[n], last[n])}
    return [n for n in outside if n in moved]
