"""Lengths, action and loss of a recorded path, each with its interval over examples (delta method)."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from memspace.action.drift import DOUBT, Drift
from memspace.geometry.path import Walk
from memspace.measurement import Measurement, Unmeasured

__all__ = ["bought", "clocked_action", "drifted", "interval", "lengths"]


def interval(value: float, effect: Tensor, extra: float = 0.0) -> tuple[float, float]:
    """95% over examples from first-order effects, widened by ``extra``."""
    n = len(effect)
    half = 1.96 * float(effect.std()) / n**0.5 if n > 1 else 0.0
    return value - half - extra, value + half + extra


def lengths(
    path: Walk, line: Walk | None, ends: Tensor, checkpoints: int
) -> tuple[list[Measurement], list[Unmeasured]]:
    """Length of the path, the line and the ambient geodesic, and their ratios; ``ends``: squared distances (n,).

    Without a ``line`` (the network is not at hand) what needs it is left out.
    """
    n = len(ends)
    length, effect = path.length, path.length_effect()
    ambient = float(ends.mean().sqrt())
    ambient_effect = (ends - ambient**2) / (2 * max(ambient, 1e-300))
    how = f"{checkpoints} checkpoints, closed-form Fisher–Rao steps on {n} probe examples"
    finer = f"a finer recording can only lengthen it; the last halving added {path.error:.2g}"
    low, high = interval(length, effect)
    out = [
        Measurement("action.length", length, "nats^½", how, n, (low, high), "THEORY 3", note=finer),
        Measurement(
            "action.constant_speed",
            length**2 / 2,
            "nats",
            f"½L² at T = 1; {how}",
            n,
            (max(low, 0.0) ** 2 / 2, high**2 / 2),
            "THEORY 3",
            note="the least action of this path over all clocks of unit duration",
        ),
        Measurement(
            "action.ambient_distance",
            ambient,
            "nats^½",
            "closed form, first to last checkpoint",
            n,
            interval(ambient, ambient_effect),
            "Rao 1945",
            note="no path between the two networks is shorter",
        ),
    ]
    shorter = [("action.inefficiency", ambient, ambient_effect, "ambient distance")]
    if line is not None:
        straight = Measurement(
            "action.straight_line_length",
            line.length,
            "nats^½",
            f"{len(line.squared) + 1} points between first and last checkpoint, {n} probe examples",
            n,
            interval(line.length, line.length_effect()),
            "THEORY 3",
            note=f"straight in the parameters; the last halving added {line.error:.2g}",
        )
        out.insert(2, straight)
        shorter.append(("action.over_straight_line", line.length, line.length_effect(), "straight-line length"))
    absent: list[Unmeasured] = []
    for name, below, below_effect, what in shorter:
        if below <= 0:
            still = "the first and last checkpoint predict the same"
            absent.append(Unmeasured(name, still, "record checkpoints from the start of training on"))
            continue
        ratio = length / below
        bounds = interval(ratio, effect / below - ratio * below_effect / below)
        out.append(Measurement(name, ratio, "1", f"path length over {what}", n, bounds, "THEORY 4"))
    return out, absent


def drifted(drift: Drift, checkpoints: int, ambient: float) -> list[Measurement]:
    """Length of the path without its noise, which does not depend on the rate of recording, and the noise's share.

    Args:
        ambient: distance of the first from the last checkpoint, noise of both ends included, nats^½.
    """
    n = len(drift.windows[0].squared)
    where = f"{len(drift.windows)} stretches of {checkpoints} checkpoints on {n} probe examples"
    length, share = drift.length, drift.noise_share
    low, high = interval(length, drift.effect(), drift.error())
    note = f"half of the noise more or less moves it by {drift.error():.2g} (inside the interval); bends that noise "
    note += "hides are missed"
    if length < ambient:  # no path is shorter than the distance of its ends, but these carry noise as well
        note += f"; below the ambient distance of {ambient:.3g}, in which the noise of the two ends still counts"
    return [
        Measurement(
            "action.drift_length",
            length,
            "nats^½",
            f"Σ √(D² − noise) at the finest scale at which drift stands out, {where}",
            n,
            (max(0.0, low), high),
            "THEORY 3",
            note=note,
        ),
        Measurement(
            "action.noise_share",
            share,
            "1",
            f"of Σ d² between neighbouring checkpoints, what is not drift, {where}",
            n,
            (drift.noise_share_at(1 - DOUBT), drift.noise_share_at(1 + DOUBT)),
            "THEORY 4",
            note="depends on the rate of recording, unlike the drift's length: the finer, the more of it is noise",
        ),
    ]


def bought(loss: Tensor) -> Measurement:
    """Loss (S, n) at the first checkpoint less that at the last, nats."""
    each = loss[0] - loss[-1]
    return Measurement(
        "action.loss_bought",
        float(each.mean()),
        "nats",
        "training loss at the first less the last checkpoint, probe examples",
        len(each),
        interval(float(each.mean()), each),
        "THEORY 4",
    )


def clocked_action(path: Walk, time: Sequence[float], checkpoints: int) -> Measurement:
    """½ Σ d²/Δt in the recorded time."""
    action = path.action(time)
    n = path.squared.shape[1]
    return Measurement(
        "action.learning_rate_time",
        action,
        "nats per learning-rate time",
        f"½ Σ d²/Δt over {checkpoints} checkpoints on {n} probe examples",
        n,
        interval(action, path.action_effect(time)),
        "THEORY 4",
        note="depends on the clock; a finer recording can only raise it",
    )
