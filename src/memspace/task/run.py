"""A recorded training: its checkpoints in order, in memory or left on disk until each is asked for."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import overload

from torch import Tensor

__all__ = ["Run", "States"]

State = dict[str, Tensor]


class States(Sequence[State]):
    """State dicts that are read one at a time, when asked for; nothing is held.

    Args:
        readers: one function per state.
    """

    def __init__(self, readers: Sequence[Callable[[], State]]) -> None:
        self._readers = tuple(readers)

    def __len__(self) -> int:
        return len(self._readers)

    @overload
    def __getitem__(self, which: int) -> State: ...
    @overload
    def __getitem__(self, which: slice) -> States: ...
    def __getitem__(self, which: int | slice) -> State | States:
        return States(self._readers[which]) if isinstance(which, slice) else self._readers[which]()

    def __iter__(self) -> Iterator[State]:
        return (read() for read in self._readers)

    def mapped(self, change: Callable[[Tensor], Tensor]) -> States:
        """The same states with every tensor changed as it is read."""

        def changed(read: Callable[[], State]) -> Callable[[], State]:
            return lambda: {k: change(v) for k, v in read().items()}

        return States([changed(read) for read in self._readers])


@dataclass(frozen=True)
class Run:
    """The recorded checkpoints of one training.

    Args:
        states: state dicts in order, the initialisation first, the trained weights last.
        time: learning-rate time of each (the sum of learning rates up to it).
        step: optimiser step of each.
        epochs: how many epochs the training took.
        optimiser: what made the steps, where that is known: ``"SGD"`` (without momentum), ``"Adam"``, the class's name.
        one_step: (step, squared Fisher–Rao length of that single step in nats), where a recorder looked.
    """

    states: Sequence[State]
    time: tuple[float, ...]
    step: tuple[int, ...]
    epochs: float = 0.0
    one_step: tuple[tuple[int, float], ...] = ()
    optimiser: str = ""

    def mapped(self, change: Callable[[Tensor], Tensor]) -> Run:
        """The run with every tensor changed; what is on disk stays there."""
        states = self.states
        if isinstance(states, States):
            return replace(self, states=states.mapped(change))
        return replace(self, states=tuple({k: change(v) for k, v in s.items()} for s in states))
