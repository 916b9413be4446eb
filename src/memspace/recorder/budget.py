"""What watching may cost: a share of the training's own time, measured with a clock as both go on.

Time earned is put into one purse per kind of work, so that frequent cheap looks do not starve rare dear ones. What was
spent before the first step is a debt that half of the earnings repay, so that looking begins at once and the whole
still comes down to the share.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

__all__ = ["TimeBudget"]

_HELD = 4.0  # a purse holds at most so many times what its work costs: a pause in training is no reason for a burst
_PAYDAY = 2e-3  # seconds of training after which it is paid
_MEMORY = 0.7  # of the running estimate of a cost


class TimeBudget:
    """Spends at most ``share`` of the time that training takes.

    Args:
        share: of the training's time, for all work together.
        parts: kind of work → its part of the share; they sum to one, the first takes what the others' purses cannot
            hold.
        settle: called before a clock is read, to wait for work that a device still has in its queue.
        clock: seconds.
    """

    def __init__(
        self,
        share: float,
        parts: Mapping[str, float],
        *,
        settle: Callable[[], None] = lambda: None,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        self.share, self._parts, self.debt = share, dict(parts), 0.0
        self._settle, self._clock = settle, clock
        self.purse = dict.fromkeys(parts, 0.0)
        self.cost = dict.fromkeys(parts, 0.0)  # running estimates; first a guess, if one is made
        self.trained = 0.0
        self.spent = 0.0
        self._unpaid = 0.0
        self._known: set[str] = set()
        self._mark = clock()
        self._first = next(iter(self.purse))

    def start(self, debt: float) -> None:
        """The training begins now; ``debt``: seconds spent so far, to be repaid."""
        self.debt = self.spent = debt
        self.trained, self._mark = 0.0, self._clock()
        self.purse = dict.fromkeys(self._parts, 0.0)

    def guess(self, kind: str, seconds: float) -> None:
        """What a kind of work may cost, until it has been measured."""
        if kind not in self._known:
            self.cost[kind] = seconds

    def earn(self) -> None:
        """Count the time since the last call, or since own work ended, as the training's."""
        now = self._clock()
        self.trained += now - self._mark
        self._unpaid += now - self._mark
        self._mark = now
        if self._unpaid < _PAYDAY:  # called at every step: it must cost next to nothing
            return
        worked, self._unpaid = self._unpaid, 0.0
        earned = self.share * worked
        paid = min(self.debt, earned / 2)
        self.debt -= paid
        earned -= paid
        over = 0.0
        for kind, part in self._parts.items():
            held = self.purse[kind] + earned * part
            most = _HELD * self.cost[kind]
            self.purse[kind] = held if kind == self._first else min(held, max(most, self.purse[kind]))
            over += held - self.purse[kind]
        first = self.purse[self._first] + over
        self.purse[self._first] = min(first, max(_HELD * max(self.cost.values()), 1e-3))

    def affords(self, kind: str) -> bool:
        """True where the purse holds what the work is expected to cost."""
        return self.purse[kind] >= self.cost[kind]

    @contextmanager
    def spending(self, kind: str) -> Iterator[None]:
        """Measure own work and pay for it; none of it counts as training."""
        self._settle()
        self.earn()
        start = self._clock()
        try:
            yield
        finally:
            self._settle()
            self._mark = self._clock()
            seconds = self._mark - start
            self.spent += seconds
            self.purse[kind] -= seconds
            known = kind in self._known
            self.cost[kind] = _MEMORY * self.cost[kind] + (1 - _MEMORY) * seconds if known else seconds
            self._known.add(kind)
