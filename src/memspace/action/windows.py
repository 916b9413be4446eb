"""A noisy path divided into windows: the stretches that count as one step of its drift (``memspace.action.drift``)."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

__all__ = ["Drift", "Readings", "Window"]


@dataclass(frozen=True)
class Window:
    """A stretch of the path that counts as one step of the drift.

    Args:
        start: position of its first checkpoint.
        end: position of its last checkpoint.
        nodes: positions of those it was judged by, ``start`` and ``end`` included.
        squared: D² per example, (n,) nats.
        noise: N of the window, nats (never above mean D²).
    """

    start: int
    end: int
    nodes: tuple[int, ...]
    squared: Tensor
    noise: float

    @property
    def share(self) -> float:
        """N over D²."""
        whole = float(self.squared.mean())
        return min(1.0, self.noise / whole) if whole > 0 else 0.0

    @property
    def length(self) -> float:
        """√(D² − N), nats^½."""
        return self.at(1.0)

    def at(self, factor: float) -> float:
        """Compute the length with another amount of noise.

        Args:
            factor: times the noise as estimated.

        Returns:
            √(D² − factor·N), nats^½.
        """
        return math.sqrt(max(0.0, float(self.squared.mean()) - factor * self.noise))


@dataclass(frozen=True)
class Drift:
    """The drift and the noise of a recorded path.

    Args:
        windows: in order, covering the path.
        recorded: Σ d² over neighbouring checkpoints.
        shares: per window, the sum of squared shares of its time that its checkpoints' steps take.
    """

    windows: tuple[Window, ...]
    recorded: float
    shares: tuple[float, ...]

    @property
    def length(self) -> float:
        """Length of the drift, nats^½."""
        return math.fsum(w.length for w in self.windows)

    @property
    def noise_share(self) -> float:
        """Share of Σ d² between neighbouring checkpoints that is not drift; 0 for a straight, finely recorded path."""
        return self.noise_share_at(1.0)

    def noise_share_at(self, factor: float) -> float:
        """Compute the share of noise with another amount of it.

        Args:
            factor: times the noise as estimated.

        Returns:
            A share in [0, 1].
        """
        steady = math.fsum(w.at(factor) ** 2 * s for w, s in zip(self.windows, self.shares, strict=True))
        return min(1.0, max(0.0, 1 - steady / self.recorded)) if self.recorded > 0 else 0.0

    def on(self, chosen: Tensor) -> Drift:
        """Restrict the drift to some of the examples, each window with its share of noise.

        Args:
            chosen: places among the examples, (k,).

        Returns:
            The same windows on these examples.
        """
        windows = []
        for w in self.windows:
            squared = w.squared[chosen]
            windows.append(replace(w, squared=squared, noise=w.share * float(squared.mean())))
        return replace(self, windows=tuple(windows))

    def effect(self) -> Tensor:
        """Differentiate the length by the examples' weights, to first order, the noise's share fixed.

        Returns:
            (n,) nats^½.
        """
        out = torch.zeros_like(self.windows[0].squared)
        for w in self.windows:
            whole = float(w.squared.mean())
            if whole > 0:
                out += w.length * (w.squared - whole) / (2 * whole)
        return out


@dataclass(frozen=True)
class Readings:
    """The path without its noise, and other readings of the same recording, whose differences are its doubt.

    Args:
        best: with the noise as estimated, by all checkpoints.
        noisier: with more of it.
        quieter: with less of it; with none where the checkpoints are too few to tell noise from bends.
        sparser: by every second checkpoint, twice: from the first and from the second on.
        telling: whether there are checkpoints enough to tell noise from bends.
        enough: whether noise could be looked for at all; else every step counts whole.
    """

    best: Drift
    noisier: Drift
    quieter: Drift
    sparser: tuple[Drift, ...]
    telling: bool
    enough: bool

    def on(self, chosen: Tensor) -> Readings:
        """Restrict all readings to some of the examples, with the shares of noise that all of them show.

        Args:
            chosen: places among the examples, (k,).

        Returns:
            The same readings on these examples.
        """
        best, noisier, quieter, *sparser = (
            d.on(chosen) for d in (self.best, self.noisier, self.quieter, *self.sparser)
        )
        return Readings(best, noisier, quieter, tuple(sparser), self.telling, self.enough)

    def doubt(self, of: Callable[[Drift], float]) -> tuple[float, float]:
        """State how far a number of the path may lie below and above its best reading.

        Leaving out every second checkpoint changes a smooth path's number by three times what the recording still
        lacks, a rough one's by about as much. It counts once below, and twice above: recorded more finely, lengths
        and what they cost grow.

        Args:
            of: the number as a function of a drift.

        Returns:
            Distances below and above, in the number's unit.
        """
        value = of(self.best)
        sparse = max((abs(value - of(d)) for d in self.sparser), default=0.0)
        others = [of(self.noisier), of(self.quieter)]
        return value - min(value, *others) + sparse, max(value, *others) - value + 2 * sparse
