"""The length of a noisy training path, whatever the rate it was recorded at.

Steps of stochastic gradients are drift and noise. The noise makes a path recorded twice as often about √2 times as
long, so that its length says more about the recording than about the training. Between two checkpoints A and B, τ steps
apart, the squared distance is D² = (drift)² + N(τ), N the structure function of the noise: cτ where steps are
independent, constant where what noise did is undone again (at stationarity), anything between, and with momentum
growing faster than τ at first.

N is read off the path itself. The height h of the triangle over AB, with a checkpoint M between, would be 0 on a
straight path; h²/s(1−s), s the share of the time at M, is N(τ) where N is linear, 3N(τ) where it is constant, and of
fourth order in τ where the path only bends. Its growth from windows to windows twice as long says which of these it is,
and how much of h² is noise.

The drift is then followed at the finest scale at which it stands out: a window of checkpoints is divided in two as long
as noise is less than a fifth of the squared distance of both halves; each remaining window counts √(D² − N). A finer
recording divides no further than noise allows, so the length does not grow with it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from memspace.geometry.distance import squared_distances
from memspace.task.likelihood import Likelihood

__all__ = ["Drift", "Window", "drift_along"]

SHARE = 0.2  # of a window's squared distance that may be noise: √(1−0.2) is off by 5% where N is off by half
PERSISTENCE = 19.0  # (1+μ)/(1−μ) at μ = 0.9: noise of steps in a row adds up to at most so much more than one by one
BEND = 4.0  # the power of τ with which h² of a smooth path grows


@dataclass(frozen=True)
class Window:
    """A stretch of the path that counts as one step of the drift.

    Args:
        start, end: positions among the checkpoints.
        squared: D² per example, (n,) nats; noise: N of the window, nats (never above mean D²).
    """

    start: int
    end: int
    squared: Tensor
    noise: float

    @property
    def length(self) -> float:
        """√(D² − N), nats^½."""
        return self.at(1.0)

    def at(self, factor: float) -> float:
        """The same with ``factor`` times the noise."""
        return math.sqrt(max(0.0, float(self.squared.mean()) - factor * self.noise))


@dataclass(frozen=True)
class Drift:
    """What drift and noise are of a recorded path.

    Args:
        windows: in order, covering the path.
        recorded: Σ d² over neighbouring checkpoints; expected: what of it is drift, by windows.
    """

    windows: tuple[Window, ...]
    recorded: float
    expected: float

    @property
    def length(self) -> float:
        """Of the drift, nats^½."""
        return math.fsum(w.length for w in self.windows)

    @property
    def noise_share(self) -> float:
        """Of Σ d² between neighbouring checkpoints that is not drift: 0 for a straight or finely recorded path."""
        return min(1.0, max(0.0, 1 - self.expected / self.recorded)) if self.recorded > 0 else 0.0

    def error(self) -> float:
        """What half and one and a half times the noise would change of the length, nats^½."""
        return max(abs(math.fsum(w.at(x) - w.length for w in self.windows)) for x in (0.5, 1.5))

    def effect(self) -> Tensor:
        """First-order change of the length per unit of an example's weight, (n,), noise held."""
        out = torch.zeros_like(self.windows[0].squared)
        for w in self.windows:
            if w.length > 0:
                out += (w.squared - w.squared.mean()) / (2 * w.length)
        return out


def drift_along(
    law: Likelihood,
    f: Tensor,
    step: Sequence[int],
    weight: Tensor | None = None,
    one_step: Sequence[tuple[int, float]] = (),
) -> Drift:
    """Drift and noise of a path from outputs along it.

    Args:
        f: (S, n, ..., C) outputs of the checkpoints on the probe examples, S ≥ 5; step: their optimiser steps.
        weight: (n, ...) 0 for padded positions.
        one_step: (step, squared length of that one optimiser step in nats), as recorded during training, if at all:
            noise is then never taken to be more than such steps can add up to.
    """
    tree = _Tree(law, f, [float(s) for s in step], weight, one_step)
    windows = tuple(tree.divided(0, len(f) - 1, 0.0))
    recorded, expected = 0.0, 0.0
    for w in windows:
        clock = tree.time[w.end] - tree.time[w.start]
        for k in range(w.start, w.end):
            recorded += float(tree.squared(k, k + 1).mean())
            expected += (w.length * (tree.time[k + 1] - tree.time[k]) / clock) ** 2
    return Drift(windows, recorded, expected)


class _Tree:
    """Windows of checkpoints, each divided at the checkpoint nearest to the middle of its time."""

    def __init__(
        self,
        law: Likelihood,
        f: Tensor,
        time: list[float],
        weight: Tensor | None,
        one_step: Sequence[tuple[int, float]],
    ) -> None:
        self._law, self._f, self.time, self._weight = law, f, time, weight
        self._steps = sorted(one_step)
        self._known: dict[tuple[int, int], Tensor] = {}

    def squared(self, a: int, b: int) -> Tensor:
        """D² per example."""
        if (a, b) not in self._known:
            self._known[a, b] = squared_distances(self._law, self._f[a], self._f[b], self._weight)
        return self._known[a, b]

    def middle(self, a: int, b: int) -> int:
        """The checkpoint strictly between whose time is nearest to the middle."""
        half = (self.time[a] + self.time[b]) / 2
        return min(range(a + 1, b), key=lambda k: abs(self.time[k] - half))

    def bent(self, a: int, b: int) -> float:
        """h²/s(1−s) of the triangle over the window."""
        m = self.middle(a, b)
        left, right, whole = (float(self.squared(*p).mean()) for p in ((a, m), (m, b), (a, b)))
        share = (self.time[m] - self.time[a]) / (self.time[b] - self.time[a])
        if whole <= 0:
            return left / (share * (1 - share))
        foot = min(1.0, max(0.0, (left + whole - right) / (2 * whole)))
        height = (1 - foot) * left + foot * right - foot * (1 - foot) * whole
        return max(0.0, height) / (share * (1 - share))

    def noise(self, a: int, b: int) -> tuple[float, float] | None:
        """(N, its power of τ) of a window, from its own triangle and those of its halves and quarters."""
        levels: list[tuple[float, float, int]] = []  # mean duration, mean bend, how many
        windows = [(a, b)]
        for _ in range(3):
            windows = [w for w in windows if w[1] - w[0] >= 2]
            if not windows:
                break
            durations = [self.time[q] - self.time[p] for p, q in windows]
            levels.append((_mean(durations), _mean([self.bent(*w) for w in windows]), len(windows)))
            windows = [half for p, q in windows for half in ((p, self.middle(p, q)), (self.middle(p, q), q))]
        levels = [x for x in levels if x[1] > 0]
        if len(levels) < 2:
            return None
        growth = _slope([(math.log(t), math.log(v), k) for t, v, k in levels])
        duration, own, _ = levels[0]
        if growth <= 1:  # between the two kinds of noise: 4N(τ/2) − N(τ) is what the triangle shows
            power = max(0.0, growth)
            return min(own / (2 ** (2 - power) - 1), self._most(a, b)), power
        # More than independent steps can do: part of it is the path's own bending, of the fourth power.
        below, fine, _ = levels[1]
        ratio = duration / below
        linear = (ratio**BEND * fine - own) / (ratio**BEND - ratio) * ratio
        return min(max(0.0, min(own, linear)), self._most(a, b)), 1.0

    def _most(self, a: int, b: int) -> float:
        """What noise of single steps can add up to, where they were recorded."""
        inside = [q for s, q in self._steps if self.time[a] < s <= self.time[b]]
        if not inside:
            return math.inf
        return PERSISTENCE * _mean(inside) * (self.time[b] - self.time[a])

    def divided(self, a: int, b: int, inherited: float, power: float = 1.0) -> list[Window]:
        """The window, or what its halves are divided into.

        Args:
            inherited: noise per step^power of the window above, used where this one is too short to tell.
        """
        own = self.noise(a, b)
        duration = self.time[b] - self.time[a]
        if own is not None:
            inherited, power = own[0] / duration ** own[1], own[1]
        noise = inherited * duration**power
        squared = self.squared(a, b)
        if b - a >= 2:
            m = self.middle(a, b)
            if all(self._stands_out(p, q, inherited, power) for p, q in ((a, m), (m, b))):
                return self.divided(a, m, inherited, power) + self.divided(m, b, inherited, power)
        return [Window(a, b, squared, min(noise, float(squared.mean())))]

    def _stands_out(self, a: int, b: int, inherited: float, power: float) -> bool:
        """Whether noise is a small part of the window's squared distance, or of all the windows below it."""
        own = self.noise(a, b)
        noise = own[0] if own is not None else inherited * (self.time[b] - self.time[a]) ** power
        return noise <= SHARE * float(self.squared(a, b).mean())


def _mean(values: Sequence[float]) -> float:
    return math.fsum(values) / len(values)


def _slope(points: Sequence[tuple[float, float, int]]) -> float:
    """Least-squares slope of (x, y, weight)."""
    total = sum(k for _, _, k in points)
    x0, y0 = (sum(k * p[i] for *p, k in points) / total for i in (0, 1))
    spread = sum(k * (x - x0) ** 2 for x, _, k in points)
    return sum(k * (x - x0) * (y - y0) for x, y, k in points) / spread if spread > 0 else 1.0
