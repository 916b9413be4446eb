"""The length of a path as a ruler measures it: laid down again whenever the end is a ruler's length away.

Steps much shorter than the ruler do not count one by one, so neither the number of probe evaluations nor a jitter
smaller than the ruler changes the length; what the ruler cannot resolve is not in it.
"""

from __future__ import annotations

from torch import Tensor

from memspace.geometry.distance import squared_distances
from memspace.task.likelihood import Likelihood

__all__ = ["Ruler"]


class Ruler:
    """Follows outputs (n, ..., C) on a fixed probe.

    Args:
        law: the output law.
        size: of the ruler, nats^½.
        f: outputs where it begins.
        time: the clock there.
        weight: 0 for padded positions.
        length: travelled before, nats^½.
        action: ½ Σ d²/Δt before (None: the clock did not move).
    """

    def __init__(
        self,
        law: Likelihood,
        size: float,
        f: Tensor,
        time: float,
        *,
        weight: Tensor | None = None,
        length: float = 0.0,
        action: float | None = 0.0,
    ) -> None:
        self._law, self._size, self._weight = law, size, weight
        self._anchor, self._begun = f, time
        self._length, self._action = length, action
        self._open, self._now = 0.0, time

    def move(self, f: Tensor, time: float, *, fix: bool = False) -> float:
        """Go on to other outputs.

        Args:
            f: outputs (n, ..., C).
            time: the clock there.
            fix: lay the ruler down here, however far it is.

        Returns:
            Their distance from where the ruler lay, nats^½.
        """
        apart = distance(self._law, self._anchor, f, self._weight)
        self._open, self._now = apart, time
        if apart >= self._size or fix:
            self._length, self._action = self.length, self.action
            self._anchor, self._begun, self._open = f, time, 0.0
        return apart

    @property
    def length(self) -> float:
        """Travelled so far, the last stretch included."""
        return self._length + self._open

    @property
    def action(self) -> float | None:
        """½ Σ d²/Δt over the stretches, nats per unit of the clock; None where it stood still."""
        if self._open == 0.0 or self._action is None:
            return self._action
        dt = self._now - self._begun
        return self._action + self._open**2 / (2 * dt) if dt > 0 else None


def distance(law: Likelihood, f: Tensor, other: Tensor, weight: Tensor | None = None) -> float:
    """Compute √ of the mean squared Fisher–Rao distance over the probe.

    Args:
        law: the output law.
        f: outputs (n, ..., C).
        other: outputs of the same shape.
        weight: 0 for padded positions.

    Returns:
        Nats^½.
    """
    return float(squared_distances(law, f, other, weight).mean().sqrt())
