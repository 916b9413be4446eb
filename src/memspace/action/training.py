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
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from memspace.action.drift import drift_along
from memspace.action.lengths import bought, clocked_action, drifted, interval, lengths
from memspace.action.slope import Slope, affordable, probe_dual, slope
from memspace.geometry.distance import squared_distances
from memspace.geometry.path import Walk, every_second, outputs_along, straight_line, walk
from memspace.measurement import Measurement, Unmeasured
from memspace.passes.outputs import outputs
from memspace.progress import Progress
from memspace.task.checks import holding
from memspace.task.space import ParameterSpace
from memspace.task.task import Task

__all__ = ["TrainingAction", "slope", "training_action"]

LINE_POINTS = 33
PROBE, SLOPE_PROBE = 512, 96  # examples that predictions are followed on, and that the slope is computed on
DAMPING = 1e-6  # of tr F, at each checkpoint
LEAST_DRIFT = 5  # checkpoints: windows of two sizes tell noise from bends
LEAST_PROBE = 8  # examples below which a slope is not worth stating
DE_GIORGI = "De Giorgi; Ambrosio, Gigli & Savaré 2008"


@dataclass(frozen=True)
class TrainingAction:
    """What was measured along a run; arrays are per checkpoint, for plotting.

    Args:
        loss: nats per example; length: travelled so far, nats^½; slope: ‖∇L‖_{F⁻¹}, nats^½ (empty: unmeasured);
            speed: Fisher–Rao length per learning-rate time of the step into each checkpoint (NaN at the first).
        segments: per step between checkpoints, column → values: ``step_from``, ``step_to``, ``length``, ``bought``
            and, where the slope is measured, ``excess`` (on its own examples; they sum to the excess) with its
            numerical ``error``: what leaving out checkpoints and the damping may have moved.
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


def training_action(
    task: Task,
    *,
    probe: int = PROBE,
    slope_probe: int = SLOPE_PROBE,
    seed: int = 0,
    progress: Progress,
    space: ParameterSpace | None = None,
    memory: int = 2**30,
) -> TrainingAction:
    """Length, action, loss bought and action excess of ``task.run``, on a random probe set of training examples.

    Args:
        probe: examples predictions are followed on; slope_probe: examples the slope ‖∇L‖_{F⁻¹} is computed on; both
            are lowered to what ``memory`` bytes hold.
        space: the parameter layout, where some layers are to stay off the fast path.
    """
    run = task.run
    if run is None or len(run.states) < 3:
        found = "no checkpoints" if run is None else f"only {len(run.states)} checkpoints"
        reason = Unmeasured(
            "action", f"{found} of the training were recorded", "record some: Task(run=Run(states, time, step))"
        )
        return TrainingAction((), (reason,))
    law = task.likelihood
    generator = torch.Generator().manual_seed(seed + 9)
    order = torch.randperm(len(task.train), generator=generator)
    example, _ = outputs(task, task.train, index=order[:1])
    fits = memory // (24 * example.numel() * max(len(run.states), LINE_POINTS))
    index = order[: max(2, min(probe, fits))].sort().values
    f, y = outputs_along(task, run.states, index, progress, "following the training path")
    weight = law.weight(f[0], y)
    loss = torch.stack([_per_example(law.nll(x, y)) for x in f])  # (S, n)
    path = walk(law, f, weight)
    line_states = straight_line(run.states[0], run.states[-1], LINE_POINTS)
    line_f, _ = outputs_along(task, line_states, index, progress, "straight line")
    line = walk(law, line_f, weight)
    del line_f
    ends = squared_distances(law, f[0], f[-1], weight)
    measurements, unmeasured = lengths(path, line, ends, len(run.states))
    measurements.append(bought(loss))
    if len(run.states) >= LEAST_DRIFT and all(b > a for a, b in itertools.pairwise(run.step)):
        drift = drift_along(law, f, run.step, weight, run.one_step)
        measurements += drifted(drift, len(run.states), float(ends.mean().sqrt()))
    else:
        unmeasured.append(
            Unmeasured(
                "action.drift_length",
                f"{len(run.states)} checkpoints, or steps that do not increase, cannot tell drift from noise",
                f"record at least {LEAST_DRIFT} checkpoints with their steps",
            )
        )
    ticking = all(b > a for a, b in itertools.pairwise(run.time))
    if ticking:
        measurements.append(clocked_action(path, run.time, len(run.states)))
    else:
        unmeasured.append(
            Unmeasured(
                "action.learning_rate_time",
                "the recorded times do not increase from checkpoint to checkpoint",
                "record the sum of learning rates at each checkpoint: Run(time=...)",
            )
        )

    steps = path.steps.tolist()
    segments = {
        "step_from": tuple(map(float, run.step[:-1])),
        "step_to": tuple(map(float, run.step[1:])),
        "length": tuple(steps),
        "bought": tuple((-torch.diff(loss.mean(1))).tolist()),
    }
    space = ParameterSpace.of(task) if space is None else space
    count, rows = affordable(task, space, index, memory)
    chosen = torch.randperm(len(index), generator=generator)[: min(slope_probe, count)].sort().values
    slopes: list[float] = []
    if moved := _moved_outside(task.model, space, run.states):
        unmeasured.append(
            Unmeasured(
                "action.excess",
                f"training also moved parameters that are not audited ({moved[0]}{', ...' if len(moved) > 1 else ''}): "
                "what it bought was not bought by the others alone",
                "audit all parameters that were trained",
            )
        )
    elif len(chosen) < min(LEAST_PROBE, len(task.train)):
        unmeasured.append(
            Unmeasured(
                "action.excess",
                f"an example's slope needs {rows:,} Jacobian rows: memory and time allow {len(chosen)} examples, "
                f"{LEAST_PROBE} are needed",
                "raise the memory budget, or use a model with fewer outputs per example",
            )
        )
    else:
        found_slopes = _slopes(task, space, run.states, index[chosen], progress)
        sub = walk(law, f[:, chosen], weight[chosen])
        times = run.time if ticking else None
        made, absent, parts = _excess(sub, found_slopes, times, loss[:, chosen], _moved(space, run.states))
        segments |= parts
        measurements += made
        unmeasured += absent
        slopes = [a.value for a, _ in found_slopes]
    speed = [
        s / (b - a) if b > a else float("nan") for s, (a, b) in zip(steps, itertools.pairwise(run.time), strict=True)
    ]
    return TrainingAction(
        tuple(measurements),
        tuple(unmeasured),
        run.time,
        run.step,
        tuple(loss.mean(1).tolist()),
        (0.0, *torch.cumsum(path.steps, 0).tolist()),
        tuple(slopes),
        (float("nan"), *speed),
        segments,
    )


def _per_example(values: Tensor) -> Tensor:
    return values.flatten(1).sum(1) if values.dim() > 1 else values


def _slopes(
    task: Task, space: ParameterSpace, states: Sequence[dict[str, Tensor]], index: Tensor, progress: Progress
) -> list[tuple[Slope, float]]:
    """The slope at every checkpoint, and the damping it was taken at."""
    out = []
    for state in progress.track(states, "slope at every checkpoint", len(states)):
        with holding(task.model, state):
            dual = probe_dual(task, space, index)
        damping = DAMPING * max(dual.trace, 1e-300)
        out.append((dual.slope(damping), damping))
    return out


def _moved(space: ParameterSpace, states: Sequence[Mapping[str, Tensor]]) -> Tensor:
    """‖Δθ‖² from checkpoint to checkpoint, (S−1,) float64."""
    flat = (space.pack({n: s[n].detach() for n in space.names}).double() for s in states)
    return torch.stack([(b - a).square().sum() for a, b in itertools.pairwise(flat)]).cpu()


def _moved_outside(model: nn.Module, space: ParameterSpace, states: Sequence[dict[str, Tensor]]) -> list[str]:
    """Parameters outside the space that differ between checkpoints."""
    outside = [n for n, _ in model.named_parameters() if n not in space.names]
    last = {n: t for n, t in states[-1].items() if n in outside}
    moved = {n for s in states if outside for n in outside if not torch.equal(s[n], last[n])}
    return [n for n in outside if n in moved]


def _trapezoid(steps: Tensor, slopes: Tensor) -> Tensor:
    return steps * (slopes[1:] + slopes[:-1]) / 2


def _excess(
    path: Walk, found: list[tuple[Slope, float]], time: Sequence[float] | None, loss: Tensor, moved: Tensor
) -> tuple[list[Measurement], list[Unmeasured], dict[str, tuple[float, ...]]]:
    """The excess over all clocks and in learning-rate time, with what each segment adds; all on the same examples.

    With the damped slope s the loss falls by at most s·√(θ̇ᵀ(F+λI)θ̇) per unit time, so that with the speed in F alone
    the excess may fall below zero by what λ‖Δθ‖² would add to the steps; that is stated as part of the error.
    """
    slopes = [a for a, _ in found]
    steps, n = path.steps.cpu(), path.squared.shape[1]
    s = torch.tensor([a.value for a in slopes], dtype=torch.float64)
    damped = torch.tensor([a.damped for a in slopes], dtype=torch.float64) / (2 * s.clamp_min(1e-300))
    effects = torch.stack([a.value_effect.cpu() for a in slopes])
    drop = (loss[0] - loss[-1]).cpu()
    gain = float(drop.mean())
    parts = _trapezoid(steps, s)
    spent = float(parts.sum())
    spent_effect = (path.step_effects().cpu() * ((s[1:] + s[:-1]) / 2).unsqueeze(1)).sum(0)
    spent_effect = spent_effect + (steps.unsqueeze(1) * (effects[1:] + effects[:-1]) / 2).sum(0)
    damping = torch.tensor([x for _, x in found], dtype=torch.float64)
    longer = (steps.square() + torch.maximum(damping[1:], damping[:-1]) * moved).sqrt() - steps
    slack = _trapezoid(longer, s)
    apart = torch.zeros_like(parts)  # per segment, what leaving out the checkpoint beside it changes
    for a, b in itertools.pairwise(every_second(len(s))):
        apart[a:b] = (parts[a:b].sum() - steps[a:b].sum() * (s[a] + s[b]) / 2).abs()
    keep = every_second(len(s))
    coarse = sum(float(steps[a:b].sum()) * float(s[a] + s[b]) / 2 for a, b in itertools.pairwise(keep))
    discretised = abs(spent - coarse)
    less = math.log(10) * float(_trapezoid(steps, damped).sum())
    how = f"trapezoid over {len(s)} checkpoints; speed, exact slope (dual) and loss on the same {n} examples"
    note = (
        f"dropping every second checkpoint moves it by {discretised:.2g} (inside the interval), ten times the "
        f"damping would lower it by about {less:.2g}; below zero by {float(slack.sum()):.2g} the damping alone may bring it"
    )
    bounds = interval(spent - gain, spent_effect - drop + gain, discretised)
    reliable = bounds[1] - bounds[0] <= spent
    if not reliable:
        note += "; a few examples with improbable labels carry most of the slope"
    beyond = parts + torch.diff(loss.mean(1).cpu())
    segments = {"excess": tuple(beyond.tolist()), "error": tuple((apart + slack).tolist())}
    measurements = [
        Measurement(
            "action.excess",
            spent - gain,
            "nats",
            f"∫‖θ̇‖_F ‖∇L‖_{{F⁻¹}} dt less the loss bought (least over all clocks), {how}",
            n,
            bounds,
            DE_GIORGI,
            reliable,
            note,
        )
    ]
    unmeasured = []
    if gain > 0:
        ratio = spent / gain
        measurements.append(
            Measurement(
                "action.spent_over_bought",
                ratio,
                "1",
                f"∫‖θ̇‖_F ‖∇L‖_{{F⁻¹}} dt over the loss bought, {how}",
                n,
                interval(ratio, (spent_effect - ratio * (drop - gain)) / gain, discretised / gain),
                DE_GIORGI,
                reliable,
                "1 on paths that follow the natural gradient",
            )
        )
    else:
        unmeasured.append(
            Unmeasured(
                "action.spent_over_bought",
                "the loss on these examples did not fall",
                "train longer, or record from an earlier checkpoint",
            )
        )
    if time is not None:
        dt = torch.diff(torch.tensor(list(time), dtype=torch.float64))
        halves = _trapezoid(dt, s.square()) / 2
        each = torch.stack([a.effect.cpu() for a in slopes])
        effect = path.action_effect(time).cpu() + (dt.unsqueeze(1) * (each[1:] + each[:-1]) / 4).sum(0)
        value = path.action(time) + float(halves.sum()) - gain
        measurements.append(
            Measurement(
                "action.excess_learning_rate_time",
                value,
                "nats",
                f"∫(½‖θ̇‖²_F + ½‖∇L‖²_{{F⁻¹}}) dt less the loss bought, in learning-rate time, {how}",
                n,
                interval(value, effect - drop + gain),
                DE_GIORGI,
                note="depends on the clock: learning-rate time is the natural gradient's own only for its own steps",
            )
        )
    return measurements, unmeasured, segments
