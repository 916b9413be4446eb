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

The drift is then followed at the finest scale at which it stands out: from the whole path down, a window of checkpoints
is divided in two as long as noise is less than a fifth of the squared distance of one half at least. Each remaining
window counts √(D² − N). Without noise every checkpoint counts; with noise a finer recording divides no further than
noise allows, so the length does not grow with it. Bends smaller than noise lets one see are missed, so that the length
found is rather too short than too long.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import replace

from torch import Tensor

from memspace.action.windows import Drift, Readings, Window
from memspace.geometry.distance import squared_distances
from memspace.geometry.path import every_second
from memspace.task.likelihood import Likelihood

__all__ = ["DOUBT", "LEAST", "TELLING", "drift_along", "readings_along"]

SHARE = 0.2  # of a half's squared distance that may be noise: √(1−0.2) is off by 6% where N is off by half
DOUBT = 0.5  # of N: how far the estimate may be off
PERSISTENCE = 19.0  # (1+μ)/(1−μ) at μ = 0.9: noise of steps in a row adds up to at most so much more than one by one
TELLING = 24  # checkpoints up to which noise cannot be told from bends; with twice as many, to DOUBT
LEAST = 5  # checkpoints: windows of two sizes tell noise from bends
BEND = 4.0  # the power of τ with which h² of a smooth path grows
MEMORY = 2 * PERSISTENCE  # steps within which noise with momentum looks like drift


def readings_along(
    law: Likelihood,
    f: Tensor,
    step: Sequence[int],
    weight: Tensor | None = None,
    one_step: Sequence[tuple[int, float]] = (),
) -> Readings:
    """Read the drift of a path from outputs along it, in several ways.

    Where checkpoints are fewer than ``LEAST``, or steps do not increase, no noise is looked for.

    Args:
        law: the output law.
        f: outputs of the S ≥ 3 checkpoints on the probe examples, (S, n, ..., C).
        step: their optimiser steps.
        weight: (n, ...) 0 for padded positions.
        one_step: as for :func:`drift_along`.

    Returns:
        The best reading and those that say how far it may be off.
    """
    count = len(f)
    enough = count >= LEAST and all(b > a for a, b in itertools.pairwise(step))
    at = [float(s) for s in step] if enough else [float(k) for k in range(count)]
    tree = _Tree(law, f, at, weight, one_step if enough else ())
    if not enough:
        whole = tree.drift(0.0)
        return Readings(whole, whole, whole, (), False, False)
    certainty = min(1.0, max(0.0, (count - TELLING) / TELLING))
    sparser = [tree.sparser(nodes) for nodes in (every_second(count), [0, *range(1, count - 1, 2), count - 1])]
    # Untold noise may be all or nothing: half of what the triangles show is then the best guess.
    best = 1 - (1 - certainty) * (1 - DOUBT)
    return Readings(
        tree.drift(best),
        tree.drift(1 + DOUBT),
        tree.drift(DOUBT * certainty),
        tuple(t.drift(best) for t in sparser),
        certainty >= 1,
        True,
    )


def drift_along(
    law: Likelihood,
    f: Tensor,
    step: Sequence[int],
    weight: Tensor | None = None,
    one_step: Sequence[tuple[int, float]] = (),
) -> Drift:
    """Separate drift and noise of a path from outputs along it.

    Args:
        law: the output law.
        f: outputs of the S ≥ 3 checkpoints on the probe examples, (S, n, ..., C).
        step: their optimiser steps.
        weight: (n, ...) 0 for padded positions.
        one_step: (step, squared length of that one optimiser step in nats), as recorded during training, if at all:
            noise is then never taken to be more than such steps can add up to.

    Returns:
        The path in windows, each with its noise.
    """
    return _Tree(law, f, [float(s) for s in step], weight, one_step).drift()


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
        self._bent: dict[tuple[int, int], float] = {}
        self._places = list(range(len(time)))  # of the nodes among all checkpoints
        self._factor = 1.0

    def sparser(self, nodes: list[int]) -> _Tree:
        """The same path by some of its checkpoints; distances once known are shared."""
        out = _Tree(self._law, self._f, [self.time[k] for k in nodes], self._weight, self._steps)
        out._places, out._known = nodes, self._known
        return out

    def drift(self, factor: float = 1.0) -> Drift:
        """Drift and noise, with ``factor`` times the noise the triangles show."""
        last, time, places = len(self.time) - 1, self.time, self._places
        self._factor = factor
        windows = self.divided(0, last, (0.0, 1.0))
        recorded = math.fsum(float(self.squared(k, k + 1).mean()) for k in range(last))
        shares = tuple(
            math.fsum(((time[k + 1] - time[k]) / (time[w.end] - time[w.start])) ** 2 for k in range(w.start, w.end))
            for w in windows
        )
        placed = tuple(
            replace(w, start=places[w.start], end=places[w.end], nodes=tuple(places[w.start : w.end + 1]))
            for w in windows
        )
        return Drift(placed, recorded, shares)

    def squared(self, a: int, b: int) -> Tensor:
        """D² per example."""
        ends = self._places[a], self._places[b]
        if ends not in self._known:
            self._known[ends] = squared_distances(self._law, self._f[ends[0]], self._f[ends[1]], self._weight)
        return self._known[ends]

    def middle(self, a: int, b: int) -> int:
        """The checkpoint strictly between whose time is nearest to the middle."""
        half = (self.time[a] + self.time[b]) / 2
        return min(range(a + 1, b), key=lambda k: abs(self.time[k] - half))

    def bent(self, a: int, b: int) -> float:
        """h²/s(1−s) of the triangle over the window."""
        if (a, b) not in self._bent:
            self._bent[a, b] = self._height(a, b)
        return self._bent[a, b]

    def _height(self, a: int, b: int) -> float:
        m = self.middle(a, b)
        left, right, whole = (float(self.squared(*p).mean()) for p in ((a, m), (m, b), (a, b)))
        share = (self.time[m] - self.time[a]) / (self.time[b] - self.time[a])
        if whole <= 0:
            return left / (share * (1 - share))
        foot = min(1.0, max(0.0, (left + whole - right) / (2 * whole)))
        height = (1 - foot) * left + foot * right - foot * (1 - foot) * whole
        return max(0.0, height) / (share * (1 - share))

    def noise(self, a: int, b: int, above: float = 0.0) -> tuple[float, float] | None:
        """(N, its power of τ) of a window, from its own triangle and those of its halves and quarters.

        Args:
            a: its first node.
            b: its last node.
            above: N of the window this is a half of, brought down in proportion to τ.
        """
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
        duration, triangle, _ = levels[0]
        if growth <= 1:  # between the two kinds of noise: 4N(τ/2) − N(τ) is what the triangle shows
            power = max(0.0, growth)
            return min(triangle / (2 ** (2 - power) - 1), self._most(a, b)), power
        # More than independent steps can do: part of it is the path's own bending, of the fourth power. Over a few
        # steps it may be momentum as well; then there is as much noise as larger windows tell.
        below, fine, _ = levels[1]
        ratio = duration / below
        linear = (ratio**BEND * fine - triangle) / (ratio**BEND - ratio) * ratio
        least = above if duration < MEMORY else 0.0
        return min(max(least, min(triangle, linear)), self._most(a, b)), 1.0

    def _most(self, a: int, b: int) -> float:
        """What noise of single steps can add up to, where they were recorded."""
        inside = [q for s, q in self._steps if self.time[a] < s <= self.time[b]]
        if not inside:
            return math.inf
        return PERSISTENCE * _mean(inside) * (self.time[b] - self.time[a])

    def divided(self, a: int, b: int, above: tuple[float, float]) -> list[Window]:
        """The window, or what its halves are divided into.

        Args:
            a: its first node.
            b: its last node.
            above: noise per step^power, and the power, of the window this is a half of: for one too short to tell.
        """
        rate, power = self._rate(a, b, above)
        if b - a >= 2:
            m = self.middle(a, b)
            if any(self._stands_out(*half, (rate, power)) for half in ((a, m), (m, b))):
                return self.divided(a, m, (rate, power)) + self.divided(m, b, (rate, power))
        squared = self.squared(a, b)
        noise = self._factor * rate * (self.time[b] - self.time[a]) ** power
        return [Window(a, b, (), squared, min(noise, float(squared.mean())))]

    def _rate(self, a: int, b: int, above: tuple[float, float]) -> tuple[float, float]:
        duration = self.time[b] - self.time[a]
        estimate = self.noise(a, b, above[0] * (2 * duration) ** above[1] / 2)
        return above if estimate is None else (estimate[0] / duration ** estimate[1], estimate[1])

    def _stands_out(self, a: int, b: int, above: tuple[float, float]) -> bool:
        rate, power = self._rate(a, b, above)
        noise: float = self._factor * rate * (self.time[b] - self.time[a]) ** power
        return noise <= SHARE * float(self.squared(a, b).mean())


def _mean(values: Sequence[float]) -> float:
    return math.fsum(values) / len(values)


def _slope(points: Sequence[tuple[float, float, int]]) -> float:
    """Least-squares slope of (x, y, weight)."""
    total = sum(k for _, _, k in points)
    x0, y0 = (sum(k * p[i] for *p, k in points) / total for i in (0, 1))
    spread = sum(k * (x - x0) ** 2 for x, _, k in points)
    return sum(k * (x - x0) * (y - y0) for x, y, k in points) / spread if spread > 0 else 1.0
