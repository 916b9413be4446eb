"""Lengths, action and loss of a recorded path, each with its interval over examples (delta method).

What the recording leaves open counts as well: a finer one would show more bends and more noise. Numbers of the path
without its noise (:mod:`memspace.action.drift`) carry the doubt of both in their interval.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from memspace.action.drift import DOUBT, TELLING
from memspace.action.windows import Drift, Readings
from memspace.geometry.path import Walk
from memspace.intervals import of_mean
from memspace.measurement import Measurement, Unmeasured

__all__ = [
    "FEW",
    "action_effect",
    "action_of",
    "bought",
    "clocked_action",
    "distance_effect",
    "distance_of",
    "doubted",
    "drifted",
    "interval",
    "lengths",
    "recorded_length",
    "sampled",
]

CROOKS = "rao1945, crooks2007"  # length and action of a path in the Fisher metric
VISIBLE = 0.02  # share of noise in the squared steps from which the length as recorded says more about the recording
FEW = f"speed counts squared, so that it takes {2 * TELLING} checkpoints or more: record more of them"
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


def recorded_length(path: Walk, readings: Readings, checkpoints: int) -> Measurement:
    """State the length of the polygon through the checkpoints; reliable where a finer recording would not change it.

    Args:
        path: steps between the checkpoints.
        readings: of the path without its noise.
        checkpoints: number of them.

    Returns:
        The length, nats^½.
    """
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
    how = f"{checkpoints} checkpoints, closed-form Fisher–Rao steps on {n} probe examples"
    return Measurement("action.length", path.length, "nats^½", how, n, (low, high), CROOKS, reliable, note)


def distance_effect(squared: Tensor) -> Tensor:
    """Differentiate √(mean d²) by the examples' weights, to first order.

    Args:
        squared: d² per example, (n,) nats.

    Returns:
        (n,) nats^½, mean zero.
    """
    value = float(squared.mean().sqrt())
    return (squared - value**2) / (2 * value) if value > 0 else torch.zeros_like(squared)


def distance_of(name: str, squared: Tensor, how: str) -> Measurement:
    """State √(mean d²) of the predictions of two networks (Rao 1945).

    Args:
        name: of the measurement.
        squared: d² per example, (n,) nats.
        how: how the distances were computed.

    Returns:
        The distance, nats^½.
    """
    value = float(squared.mean().sqrt())
    low, high = interval(value, distance_effect(squared))
    note = "no path between the two networks is shorter"
    return Measurement(name, value, "nats^½", how, len(squared), (max(0.0, low), high), "rao1945", note=note)


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
    n = len(ends)
    distance = distance_of("action.ambient_distance", ends, "closed form, first to last checkpoint")
    ambient, ambient_effect = distance.value, distance_effect(ends)
    length, effect, doubt, of = path.length, path.length_effect(), (0.0, max(0.0, path.error)), "length as recorded"
    out = [recorded_length(path, readings, checkpoints)]
    if readings.enough:
        drift, share = drifted(readings, checkpoints, distance)
        out += [drift, share]
        best = readings.best.length
        length, of, doubt = drift.value, "length without noise", readings.doubt(lambda d: max(d.length, ambient))
        effect = readings.best.effect() if best >= ambient else ambient_effect
    low = ambient - sampled(ambient_effect)[0]
    squared, sure, why = doubted(length, effect, doubt, max(low, 0.0))
    untold = (
        "" if readings.enough else "; drift cannot be told from noise: too few checkpoints, or no steps that increase"
    )
    reliable = sure and readings.enough
    out.append(
        Measurement(
            "action.constant_speed",
            length**2 / 2,
            "nats",
            f"½L² at T = 1, L the {of}",
            n,
            (max(squared[0], 0.0) ** 2 / 2, squared[1] ** 2 / 2),
            CROOKS,
            reliable,
            _joined("the least action of this path over all clocks of unit duration" + untold, why),
        )
    )
    shorter = [("action.inefficiency", ambient, ambient_effect, "ambient distance", 0.0)]
    if line is not None:
        straight = Measurement(
            "action.straight_line_length",
            line.smooth,
            "nats^½",
            f"{len(line.squared) + 1} points between first and last checkpoint, {n} probe examples",
            n,
            interval(line.smooth, line.length_effect(), line.smooth - line.length, line.upper - line.smooth),
            CROOKS,
            note=f"straight in the parameters; the last halving added {line.error:.2g}, a third of it is in the value",
        )
        out.append(straight)
        missed = line.upper - line.length
        shorter.append(("action.over_straight_line", line.smooth, line.length_effect(), "straight-line length", missed))
    out.append(distance)
    absent: list[Unmeasured] = []
    for name, below, below_effect, what, more in shorter:
        if below <= 0:
            still = "the first and last checkpoint predict the same"
            absent.append(Unmeasured(name, still, "record checkpoints from the start of training on"))
            continue
        ratio = length / below
        uncertain = doubt[0] / below + ratio * more / below, doubt[1] / below
        least = 1.0 if name == "action.inefficiency" else 0.0
        bounds, sure, why = doubted(ratio, effect / below - ratio * below_effect / below, uncertain, least)
        sure = sure and readings.enough
        note = _joined(untold.removeprefix("; "), why)
        out.append(Measurement(name, ratio, "1", f"{of} over {what}", n, bounds, "", sure, note))
    return out, absent


def _joined(*parts: str) -> str:
    return "; ".join(p for p in parts if p)


def drifted(readings: Readings, checkpoints: int, ambient: Measurement) -> tuple[Measurement, Measurement]:
    """State the length of the path without its noise, whatever the rate of recording, and the noise's share.

    Args:
        readings: of the path without its noise.
        checkpoints: number of them.
        ambient: distance of the ends, below which no length can fall.

    Returns:
        The length, nats^½, and the share.
    """
    drift = readings.best
    n = len(drift.windows[0].squared)
    where = f"{len(drift.windows)} stretches of {checkpoints} checkpoints on {n} probe examples"
    shortest = ambient.value
    length = max(drift.length, shortest)
    doubt = readings.doubt(lambda d: max(d.length, shortest))
    assert ambient.interval is not None
    bounds, reliable, why = doubted(length, drift.effect(), doubt, max(0.0, ambient.interval[0]))
    note = f"more or less noise and fewer checkpoints move it by {max(doubt):.2g} (inside the interval)"
    if drift.length < shortest:
        note += f"; without noise {drift.length:.3g} were left: taken as the distance of its ends, the least possible"
    low, high = sorted(d.noise_share for d in (readings.noisier, readings.quieter))
    share = drift.noise_share
    return (
        Measurement(
            "action.drift_length",
            length,
            "nats^½",
            f"Σ √(D² − noise) at the finest scale at which drift stands out, {where}",
            n,
            bounds,
            "",
            reliable,
            _joined(note, why),
        ),
        Measurement(
            "action.noise_share",
            share,
            "1",
            f"of Σ d² between neighbouring checkpoints, what is not drift, {where}",
            n,
            (
                min(low, drift.noise_share_at(1 - DOUBT), share),
                max(high, drift.noise_share_at(1 + DOUBT), share),
            ),
            "",
            share <= VISIBLE and high <= VISIBLE,
            "of this recording and not of the training: the finer it is, the more of it is noise",
        ),
    )


def bought(loss: Tensor) -> Measurement:
    """State the loss at the first checkpoint less that at the last.

    Args:
        loss: (S, n) nats.

    Returns:
        The mean over examples, nats.
    """
    fall = loss[0] - loss[-1]
    return Measurement(
        "action.loss_bought",
        float(fall.mean()),
        "nats",
        "training loss at the first less the last checkpoint, probe examples",
        len(fall),
        interval(float(fall.mean()), fall),
    )


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
        bounds, reliable, why = (
            interval(value, effect),
            False,
            "drift cannot be told from noise: too few checkpoints, or no steps that increase",
        )
    else:
        value, effect = action_of(time)(readings.best), action_effect(readings.best, time)
        bounds, reliable, why = doubted(value, effect, readings.doubt(action_of(time)), 0.0)
        if reliable and not readings.telling:  # speed is squared in it: what is fast early may lie between checkpoints
            reliable, why = False, FEW
    return Measurement(
        "action.learning_rate_time",
        value,
        "nats per learning-rate time",
        f"½ Σ ℓ²/Δt over {checkpoints} checkpoints on {n} probe examples, noise taken out",
        n,
        bounds,
        CROOKS,
        reliable,
        _joined(note, why),
    )
