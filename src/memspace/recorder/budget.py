"""What watching may cost: a share of the training's own time, measured with a clock as both go on.

Time earned is shared out to one balance per kind of work, so that frequent cheap work does not starve rare dear work.
What was spent before the first step is a debt that half of the earnings repay, so that watching begins at once and the
whole still comes down to the share.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

__all__ = ["TimeBudget"]

_MOST = 4.0  # a balance is at most so many times what its work costs: a pause in training is no reason for a burst
_PAYDAY = 2e-3  # seconds of training after which it is paid
_MEMORY = 0.7  # of the running estimate of a cost


class TimeBudget:
    """Spends at most ``share`` of the time that training takes.

    ``balance`` is what each kind of work may spend now, in seconds; ``cost`` what it is expected to take.

    Args:
        share: of the training's time, for all work together.
        parts: kind of work → its part of the share; they sum to one, the first takes what the others' balances cannot
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
        self.balance = dict.fromkeys(parts, 0.0)
        self.cost = dict.fromkeys(parts, 0.0)  # running estimates; first a guess, if one is made
        self.trained = 0.0
        self.spent = 0.0
        self.unshared = 0.0  # seconds of work that was asked for
        self._unpaid = 0.0
        self._known: set[str] = set()
        self._mark = clock()
        self._first = next(iter(self.balance))

    def start(self, debt: float) -> None:
        """Begin the training's time.

        Args:
            debt: seconds spent so far, to be repaid.
        """
        self.debt = self.spent = debt
        self.trained, self._mark = 0.0, self._clock()
        self.balance = dict.fromkeys(self._parts, 0.0)

    def guess(self, kind: str, seconds: float) -> None:
        """Set what a kind of work may cost, until it has been measured.

        Args:
            kind: of work.
            seconds: the guess.
        """
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
            filled = self.balance[kind] + earned * part
            most = _MOST * self.cost[kind]
            self.balance[kind] = filled if kind == self._first else min(filled, max(most, self.balance[kind]))
            over += filled - self.balance[kind]
        first = self.balance[self._first] + over
        self.balance[self._first] = min(first, max(_MOST * max(self.cost.values()), 1e-3))

    def affords(self, kind: str) -> bool:
        """Tell whether the balance holds what the work is expected to cost.

        Args:
            kind: of work.

        Returns:
            True where it does.
        """
        return self.balance[kind] >= self.cost[kind]

    @contextmanager
    def asked(self) -> Iterator[None]:
        """Measure work that was asked for at a step: it is no training, and no balance pays for it.

        Yields:
            Nothing.
        """
        self._settle()
        self.earn()
        try:
            yield
        finally:
            self._settle()
            now = self._clock()
            self.unshared += now - self._mark
            self._mark = now

    @contextmanager
    def spending(self, kind: str) -> Iterator[None]:
        """Measure own work and pay for it; none of it counts as training.

        Args:
            kind: of work.

        Yields:
            Nothing.
        """
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
            self.balance[kind] -= seconds
            known = kind in self._known
            self.cost[kind] = _MEMORY * self.cost[kind] + (1 - _MEMORY) * seconds if known else seconds
            self._known.add(kind)
