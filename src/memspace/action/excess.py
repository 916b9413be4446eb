"""The action spent beyond the loss it bought, without the noise of the steps, all on the same examples.

Over a window of the drift of length ℓ the action spent over the best clock is ℓ times the mean slope. Length by
checkpoints would grow with every refinement of a noisy recording, and the excess with it.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from memspace.action.lengths import FEW, UNTOLD, action_effect, action_of, doubted, sampled
from memspace.action.quantities import state
from memspace.action.slope import Slope
from memspace.action.windows import Drift, Readings
from memspace.measurement import Measurement, Unmeasured
from memspace.value import Value

__all__ = ["SpentPath", "excess", "excess_in_time", "windows"]


@dataclass(frozen=True)
class SpentPath:
    """Slopes along a path and what was spent between its checkpoints.

    Args:
        readings: drift and noise of the path on the slope's examples.
        slopes: at every checkpoint.
        step: optimiser steps.
        loss: (S, n) nats, on the same examples.
    """

    readings: Readings
    slopes: tuple[Slope, ...]
    step: tuple[float, ...]
    loss: Tensor

    def weights(self, nodes: Sequence[int]) -> list[tuple[int, float]]:
        """Weigh a window's nodes by the share of its time that each stands for (trapezoid).

        Args:
            nodes: positions of checkpoints.

        Returns:
            Pairs of node and share; shares sum to one.
        """
        whole = self.step[nodes[-1]] - self.step[nodes[0]]
        share = [0.0] * len(nodes)
        for k, (a, b) in enumerate(itertools.pairwise(nodes)):
            half = (self.step[b] - self.step[a]) / whole / 2
            share[k] += half
            share[k + 1] += half
        return list(zip(nodes, share, strict=True))

    def slope(self, nodes: Sequence[int]) -> float:
        """Average the slope over a window.

        Args:
            nodes: positions of checkpoints.

        Returns:
            Nats^½.
        """
        return math.fsum(w * self.slopes[k].value for k, w in self.weights(nodes))

    def of(self, drift: Drift) -> float:
        """Sum ∫‖θ̇‖_F ‖∇L‖_{F⁻¹} dt along a drift.

        Args:
            drift: the path without its noise.

        Returns:
            Nats.
        """
        return math.fsum(w.length * self.slope(w.nodes) for w in drift.windows)

    def halves(self, drift: Drift, time: Sequence[float]) -> float:
        """Sum ∫½‖∇L‖²_{F⁻¹} dt in the recorded time, by trapezoids between the drift's nodes.

        Args:
            drift: the path without its noise.
            time: recorded time at every checkpoint.

        Returns:
            Nats.
        """
        nodes = list(dict.fromkeys(k for w in drift.windows for k in w.nodes))
        return math.fsum(
            (time[b] - time[a]) * (self.slopes[a].squared + self.slopes[b].squared) / 4
            for a, b in itertools.pairwise(nodes)
        )

    def effect(self) -> Tensor:
        """Differentiate what was spent by the examples' weights, to first order.

        Returns:
            (n,) nats.
        """
        out = torch.zeros_like(self.loss[0])
        for w in self.readings.best.windows:
            whole = float(w.squared.mean())
            if whole > 0:
                out += self.slope(w.nodes) * w.length * (w.squared - whole).to(out) / (2 * whole)
            for k, share in self.weights(w.nodes):
                out += w.length * share * self.slopes[k].value_effect.to(out)
        return out


def windows(spent: SpentPath, loss: Tensor, drift: Drift, moved: Tensor, damping: Sequence[float]) -> dict[str, Tensor]:
    """Split the excess by window, with what may have moved it.

    With the damped slope s the loss falls by at most s·√(θ̇ᵀ(F+λI)θ̇) per unit time, so that with the speed in F alone
    the excess may fall below zero by what λ‖Δθ‖² would add to the steps.

    Args:
        spent: slopes along the path.
        loss: (S,) nats, on the slope's examples.
        drift: the path without its noise, W windows.
        moved: ‖Δθ‖² over each window, (W,).
        damping: λ at every checkpoint.

    Returns:
        ``excess`` (W,), its ``error`` (what noise, nodes left out and the damping may have moved) and ``slack`` (the
        damping's part of that), nats.
    """
    parts, errors, slack = [], [], []
    ended: list[tuple[float, float]] = []
    for w, far in zip(drift.windows, moved.tolist(), strict=True):
        s, ends = spent.slope(w.nodes), spent.slope((w.start, w.end))
        whole = math.sqrt(float(w.squared.mean()))
        longer = math.sqrt(whole**2 + max(damping[w.start], damping[w.end]) * far) - whole
        parts.append(w.length * s)
        slack.append(longer * s)
        errors.append((whole - w.length) * s + whole * abs(s - ends))
        ended.append((w.length, ends))
    for a in range(0, len(parts) - 1):  # what leaving out the node between two windows changes
        first, last = spent.slopes[drift.windows[a].start].value, spent.slopes[drift.windows[a + 1].end].value
        apart = abs(sum(x * y for x, y in ended[a : a + 2]) - sum(x for x, _ in ended[a : a + 2]) * (first + last) / 2)
        for k in (a, a + 1):
            errors[k] = max(errors[k], apart)
    gained = torch.tensor([float(loss[w.start] - loss[w.end]) for w in drift.windows], dtype=torch.float64)
    return {
        "excess": torch.tensor(parts, dtype=torch.float64) - gained,
        "error": torch.tensor(errors, dtype=torch.float64) + torch.tensor(slack, dtype=torch.float64),
        "slack": torch.tensor(slack, dtype=torch.float64),
    }


def excess(spent: SpentPath, parts: dict[str, Tensor]) -> tuple[list[Measurement], list[Unmeasured]]:
    """State the excess over all clocks, and the action spent over the loss bought.

    Args:
        spent: slopes along the path.
        parts: what :func:`windows` gave.

    Returns:
        Measurements, and what could not be measured.
    """
    drift, n = spent.readings.best, spent.loss.shape[1]
    drop = (spent.loss[0] - spent.loss[-1]).cpu()
    gain, cost = float(drop.mean()), spent.of(drift)
    doubt, effect = spent.readings.doubt(spent.of), spent.effect().cpu()
    less = math.log(10) * math.fsum(
        w.length * share * spent.slopes[k].damped / (2 * max(spent.slopes[k].value, 1e-300))
        for w in drift.windows
        for k, share in spent.weights(w.nodes)
    )
    how = f"{len(drift.windows)} stretches of {len(spent.slopes)} checkpoints, noise taken out; speed, exact slope "
    how += f"(dual) and loss on the same {n} examples"
    # Relied on where what was spent is known well: the excess itself may well be zero.
    bounds, reliable, why = doubted(cost, effect - drop + gain, doubt)
    bounds = (bounds[0] - gain, bounds[1] - gain)
    reliable = reliable and spent.readings.enough
    note = f"recorded otherwise it may lie {doubt[0]:.2g} lower or {doubt[1]:.2g} higher (inside the interval), ten "
    note += f"times the damping would lower it by about {less:.2g}; below zero by {float(parts['slack'].sum()):.2g} "
    note += "the damping alone may bring it"
    if not spent.readings.enough:
        why = UNTOLD
    elif why and sum(doubt) <= sum(sampled(effect)):
        why = "a few examples with improbable labels carry most of the slope"
    if why:
        note += f"; {why}"
    measured = [state("action.excess", Value(cost - gain, n, bounds, how=how, reliable=reliable, note=note))]
    if gain <= 0:
        still = Unmeasured(
            "action.spent_over_bought",
            "the loss on these examples did not fall",
            "train longer, or record from an earlier checkpoint",
        )
        return measured, [still]
    ratio = cost / gain
    bounds, sure, _ = doubted(ratio, (effect - ratio * (drop - gain)) / gain, (doubt[0] / gain, doubt[1] / gain), 0.0)
    note = "1 on paths that follow the natural gradient" + (f"; {why}" if why else "")
    spent_for = Value(ratio, n, bounds, how=how, reliable=reliable and sure, note=note)
    measured.append(state("action.spent_over_bought", spent_for))
    return measured, []


def excess_in_time(spent: SpentPath, time: Sequence[float]) -> Measurement:
    """State the energy–dissipation excess in the recorded time, where learning rates are one.

    Args:
        spent: slopes along the path.
        time: recorded time at every checkpoint.

    Returns:
        The excess, nats.
    """
    drift, n = spent.readings.best, spent.loss.shape[1]
    drop = (spent.loss[0] - spent.loss[-1]).cpu()
    action = action_of(time)

    def both(d: Drift) -> float:
        return action(d) + spent.halves(d, time)

    cost, gain = both(drift), float(drop.mean())
    effect = action_effect(drift, time).cpu()
    for a, b in itertools.pairwise(range(len(spent.slopes))):
        slope_effects = spent.slopes[a].effect + spent.slopes[b].effect
        effect = effect + (time[b] - time[a]) * slope_effects.cpu() / 4
    bounds, reliable, why = doubted(cost, effect - drop + gain, spent.readings.doubt(both))
    if reliable and not spent.readings.telling:
        reliable, why = False, FEW
    note = "depends on the clock: learning-rate time is the natural gradient's own only for its own steps"
    value = Value(
        cost - gain,
        n,
        (bounds[0] - gain, bounds[1] - gain),
        how=f"{len(spent.slopes)} checkpoints, noise taken out, on {n} examples",
        reliable=reliable and spent.readings.enough,
        note=note + (f"; {why}" if why else ""),
    )
    return state("action.excess_learning_rate_time", value)
