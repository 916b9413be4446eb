"""Lengths, action and loss of a recorded path, each with its interval over examples (delta method).

What the recording leaves open counts as well: a finer one would show more bends and more noise. Numbers of the path
without its noise (:mod:`memspace.action.drift`) carry the doubt of both in their interval.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from memspace.action.drift import DOUBT, TELLING
from memspace.action.quantities import state
from memspace.action.windows import Drift, Readings
from memspace.geometry.path import Walk
from memspace.intervals import of_mean
from memspace.measurement import Measurement, Unmeasured
from memspace.value import Value

__all__ = [
    "FEW",
    "UNTOLD",
    "action_effect",
    "action_of",
    "bought",
    "clocked_action",
    "distance_effect",
    "distance_value",
    "doubted",
    "interval",
    "lengths",
    "sampled",
]

VISIBLE = 0.02  # share of noise in the squared steps from which the length as recorded says more about the recording
FEW = f"speed counts squared, so that it takes {2 * TELLING} checkpoints or more: record more of them"
UNTOLD = "drift cannot be told from noise: too few checkpoints, or no steps that increase"
HALF = 0.5  # width of an interval, in its value, above which a number along the path is not reliable


def sampled(effect: Tensor) -> tuple[float, float]:
    """Compute how far the 95% interval over examples reaches below and above.

    Args:
        effect: first-order effects of the examples' weights, (n,).

    Returns:
        Distances below and above the value.
    """
    ends = of_mean(effect - effect.mean()).ends or (0.0, 0.0)
    return -ends[0], ends[1]


def interval(value: float, effect: Tensor, below: float = 0.0, above: float | None = None) -> tuple[float, float]:
    """Compute the 95% interval over examples, widened by systematic errors.

    Args:
        value: the number.
        effect: its first-order effects of the examples' weights, (n,).
        below: systematic error below the value.
        above: systematic error above; as below where not given.

    Returns:
        The interval's ends.
    """
    low, high = sampled(effect)
    return value - low - below, value + high + (below if above is None else above)


def doubted(
    value: float, effect: Tensor, doubt: tuple[float, float], least: float = -math.inf
) -> tuple[tuple[float, float], bool, str]:
    """Compute an interval over examples and recordings, and judge whether it is narrow enough to rely on.

    Args:
        value: the number.
        effect: its first-order effects of the examples' weights, (n,).
        doubt: of the recording, below and above.
        least: what the number cannot fall below.

    Returns:
        The interval, whether to rely on it, and what to say if not.
    """
    low, high = interval(value, effect, *doubt)
    bounds = (min(value, max(low, least)), high)
    reliable = bounds[1] - bounds[0] <= 2 * HALF * abs(value)
    if reliable:
        return bounds, True, ""
    if sum(doubt) > sum(sampled(effect)):
        return bounds, False, "at this rate of recording noise and bends cannot be told apart: record more checkpoints"
    return bounds, False, "it hangs on a few of the examples probed: take more of them"


def _recorded_length(path: Walk, readings: Readings, checkpoints: int) -> Value:
    """The length of the polygon through the checkpoints; reliable where a finer recording would not change it."""
    n = path.squared.shape[1]
    low, high = interval(path.length, path.length_effect(), 0.0, max(0.0, path.error))
    note = f"a finer recording can only lengthen it; the last halving added {path.error:.2g}"
    if not readings.enough:
        reliable = False
        note += "; how much of it is noise cannot be told: too few checkpoints, or no steps that increase"
    else:
        share = readings.best.noise_share
        reliable = readings.telling and share <= VISIBLE and high - low <= 2 * HALF * path.length
        if not reliable:
            note += f"; {share:.0%} of its squared steps is noise, so that it grows with the rate of recording: "
            note += "action.drift_length does not"
    how = f"{checkpoints} checkpoints, {n} probe examples"
    return Value(path.length, n, (low, high), how=how, reliable=reliable, note=note)


def distance_effect(squared: Tensor) -> Tensor:
    """Differentiate √(mean d²) by the examples' weights, to first order.

    Args:
        squared: d² per example, (n,) nats.

    Returns:
        (n,) nats^½, mean zero.
    """
    value = float(squared.mean().sqrt())
    return (squared - value**2) / (2 * value) if value > 0 else torch.zeros_like(squared)


def distance_value(squared: Tensor) -> Value:
    """Compute √(mean d²) of the predictions of two networks (Rao 1945).

    Args:
        squared: d² per example, (n,) nats.

    Returns:
        The distance, nats^½, with its interval over examples.
    """
    value = float(squared.mean().sqrt())
    low, high = interval(value, distance_effect(squared))
    note = "no path between the two networks is shorter"
    return Value(value, len(squared), (max(0.0, low), high), note=note)


@dataclass(frozen=True)
class _Taken:
    """The length that action and ratios are taken of: ``what`` it is, its effects and the recording's doubt."""

    what: str
    length: float
    effect: Tensor
    doubt: tuple[float, float]
    enough: bool  # whether noise could be looked for

    def judged(self, reliable: bool, why: str, note: str = "") -> dict[str, Any]:
        """Whether to rely on what is made of it, and what to say of that."""
        untold = "" if self.enough else UNTOLD
        return {"reliable": reliable and self.enough, "note": _joined(note, untold, why)}


def lengths(
    path: Walk, line: Walk | None, ends: Tensor, checkpoints: int, readings: Readings
) -> tuple[list[Measurement], list[Unmeasured]]:
    """State the length of the path, with and without its noise, of the line and the ambient geodesic, and their ratios.

    No path is shorter than the distance of its ends, so that neither is the length without noise.

    Args:
        path: steps between the checkpoints.
        line: the straight line in the parameters; where the network is not at hand, what needs it is left out.
        ends: squared distances of first and last checkpoint, (n,) nats.
        checkpoints: number of them.
        readings: of the path without its noise; where no noise could be looked for, ratios are of the length as
            recorded, and not reliable.

    Returns:
        Measurements, and what could not be measured.
    """
    distance = distance_value(ends)
    ambient, ambient_effect = distance.value, distance_effect(ends)
    values = {"action.length": _recorded_length(path, readings, checkpoints)}
    if readings.enough:
        drift = _drift_length(readings, checkpoints, distance)
        values |= {"action.drift_length": drift, "action.noise_share": _noise_share(readings, checkpoints)}
        effect = readings.best.effect() if readings.best.length >= ambient else ambient_effect
        doubt = readings.doubt(lambda d: max(d.length, ambient))
        taken = _Taken("length without noise", drift.value, effect, doubt, True)
    else:
        doubt = 0.0, max(0.0, path.error)
        taken = _Taken("length as recorded", path.length, path.length_effect(), doubt, False)
    least = max(0.0, ambient - sampled(ambient_effect)[0])
    values["action.constant_speed"] = _constant_speed(taken, least)
    if line is not None:
        values["action.straight_line_length"] = _line_length(line)
    values["action.ambient_distance"] = distance
    absent: list[Unmeasured] = []
    ratios = {"action.inefficiency": _ratio(taken, ambient, ambient_effect, least=1.0)}
    if line is not None:
        missed = line.upper - line.length
        ratios["action.over_straight_line"] = _ratio(taken, line.smooth, line.length_effect(), missed)
    for name, ratio in ratios.items():
        if ratio is None:
            same = "the first and last checkpoint predict the same"
            absent.append(Unmeasured(name, same, "record checkpoints from the start of training on"))
        else:
            values[name] = ratio
    return [state(name, value) for name, value in values.items()], absent


def _constant_speed(taken: _Taken, least: float) -> Value:
    """½L², never below that of the least length."""
    ends, sure, why = doubted(taken.length, taken.effect, taken.doubt, least)
    judged = taken.judged(sure, why, "the least action of this path over all clocks of unit duration")
    bounds = max(ends[0], 0.0) ** 2 / 2, ends[1] ** 2 / 2
    return Value(taken.length**2 / 2, len(taken.effect), bounds, how=f"L the {taken.what}", **judged)


def _line_length(line: Walk) -> Value:
    """The length of the straight line, with a third of what its last halving added."""
    n = line.squared.shape[1]
    bounds = interval(line.smooth, line.length_effect(), line.smooth - line.length, line.upper - line.smooth)
    how = f"{len(line.squared) + 1} points between first and last checkpoint, {n} probe examples"
    note = f"straight in the parameters; the last halving added {line.error:.2g}, a third of it is in the value"
    return Value(line.smooth, n, bounds, how=how, note=note)


def _ratio(taken: _Taken, below: float, effect: Tensor, missed: float = 0.0, least: float = 0.0) -> Value | None:
    """A length over another, ``below``, which may be too short by ``missed``; None where that is zero."""
    if below <= 0:
        return None
    ratio = taken.length / below
    doubt = taken.doubt[0] / below + ratio * missed / below, taken.doubt[1] / below
    bounds, sure, why = doubted(ratio, taken.effect / below - ratio * effect / below, doubt, least)
    return Value(ratio, len(effect), bounds, how=taken.what, **taken.judged(sure, why))


def _joined(*parts: str) -> str:
    return "; ".join(p for p in parts if p)


def _stretches(readings: Readings, checkpoints: int) -> tuple[str, int]:
    """Where the drift was read, in words, and on how many examples."""
    windows = readings.best.windows
    n = len(windows[0].squared)
    return f"{len(windows)} stretches of {checkpoints} checkpoints on {n} probe examples", n


def _drift_length(readings: Readings, checkpoints: int, ambient: Value) -> Value:
    """The length of the path without its noise, never below the distance of its ends."""
    drift, shortest = readings.best, ambient.value
    where, n = _stretches(readings, checkpoints)
    length = max(drift.length, shortest)
    doubt = readings.doubt(lambda d: max(d.length, shortest))
    assert ambient.interval is not None
    bounds, reliable, why = doubted(length, drift.effect(), doubt, max(0.0, ambient.interval[0]))
    note = f"more or less noise and fewer checkpoints move it by {max(doubt):.2g} (inside the interval)"
    if drift.length < shortest:
        note += f"; without noise {drift.length:.3g} were left: taken as the distance of its ends, the least possible"
    return Value(length, n, bounds, how=where, reliable=reliable, note=_joined(note, why))


def _noise_share(readings: Readings, checkpoints: int) -> Value:
    """The share of the recording's squared steps that is noise."""
    drift = readings.best
    where, n = _stretches(readings, checkpoints)
    share = drift.noise_share
    low, high = sorted(d.noise_share for d in (readings.noisier, readings.quieter))
    bounds = min(low, drift.noise_share_at(1 - DOUBT), share), max(high, drift.noise_share_at(1 + DOUBT), share)
    reliable = share <= VISIBLE and high <= VISIBLE
    note = "of this recording and not of the training: the finer it is, the more of it is noise"
    return Value(share, n, bounds, how=where, reliable=reliable, note=note)


def bought(loss: Tensor) -> Measurement:
    """State the loss at the first checkpoint less that at the last.

    Args:
        loss: (S, n) nats.

    Returns:
        The mean over examples, nats.
    """
    fall = loss[0] - loss[-1]
    mean = float(fall.mean())
    return state("action.loss_bought", Value(mean, len(fall), interval(mean, fall)))


def action_of(time: Sequence[float]) -> Callable[[Drift], float]:
    """Make the action ½ Σ ℓ²/Δt of a drift in the recorded time.

    Args:
        time: recorded time at every checkpoint.

    Returns:
        Drift ↦ nats per unit time.
    """

    def action(drift: Drift) -> float:
        return math.fsum(w.length**2 / (2 * (time[w.end] - time[w.start])) for w in drift.windows)

    return action


def action_effect(drift: Drift, time: Sequence[float]) -> Tensor:
    """Differentiate the action of a drift by the examples' weights, to first order.

    Args:
        drift: the path without its noise.
        time: recorded time at every checkpoint.

    Returns:
        (n,) nats per unit time.
    """
    out = torch.zeros_like(drift.windows[0].squared)
    for w in drift.windows:
        out += (1 - w.share) * (w.squared - w.squared.mean()) / (2 * (time[w.end] - time[w.start]))
    return out


def clocked_action(path: Walk, readings: Readings, time: Sequence[float], checkpoints: int) -> Measurement:
    """State ½ Σ ℓ²/Δt in the recorded time, without the path's noise.

    Args:
        path: steps between the checkpoints, for where no noise could be looked for.
        readings: of the path without its noise.
        time: recorded time at every checkpoint.
        checkpoints: number of them.

    Returns:
        The action, nats per learning-rate time.
    """
    n = path.squared.shape[1]
    note = "depends on the clock; where the rates are no time (Adam) it compares trainings by that optimiser only"
    if not readings.enough:
        value, effect = path.action(time), path.action_effect(time)
        bounds, reliable, why = interval(value, effect), False, UNTOLD
    else:
        value, effect = action_of(time)(readings.best), action_effect(readings.best, time)
        bounds, reliable, why = doubted(value, effect, readings.doubt(action_of(time)), 0.0)
        if reliable and not readings.telling:  # speed is squared in it: what is fast early may lie between checkpoints
            reliable, why = False, FEW
    how = f"{checkpoints} checkpoints on {n} probe examples"
    spent = Value(value, n, bounds, how=how, reliable=reliable, note=_joined(note, why))
    return state("action.learning_rate_time", spent)
