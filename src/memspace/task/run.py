"""A recorded training: its checkpoints in order, in memory or left on disk until each is asked for."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, overload

from torch import Tensor

from memspace.arguments import check_fields, described
from memspace.errors import SettingsError

__all__ = ["Run", "States"]

State = dict[str, Tensor]


class States(Sequence[State]):
    """State dicts that are read one at a time, when asked for; none is kept.

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
        """Apply a change to every tensor of the states as it is read.

        Args:
            change: of a tensor.

        Returns:
            New states over the same readers.
        """

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
        one_step: (step, squared Fisher–Rao length of that single step in nats), where a recorder measured it.
        optimiser: the optimiser, where it is known: ``"SGD"`` (without momentum), ``"Adam"``, the class's name.

    Raises:
        SettingsError: states, times and steps are not one of each per checkpoint.
    """

    states: Sequence[State]
    time: tuple[float, ...]
    step: tuple[int, ...]
    epochs: float = 0.0
    one_step: tuple[tuple[int, float], ...] = ()
    optimiser: str = ""

    def __post_init__(self) -> None:
        check_fields(self, besides=("states", "one_step"))
        _check_states(self.states)
        time, step = tuple(map(float, self.time)), tuple(map(int, self.step))
        if not len(self.states) == len(time) == len(step):
            raise SettingsError(
                f"a run has {len(self.states)} states, {len(time)} times and {len(step)} steps",
                where="memspace.Run",
                remedy="give one time (the sum of learning rates) and one optimiser step for each state",
            )
        if not all(map(math.isfinite, (*time, self.epochs))) or min(*step, self.epochs) < 0:
            raise SettingsError(
                "times of a run are finite numbers and its steps count from 0",
                where="memspace.Run",
                remedy="give the sum of learning rates and the number of optimiser steps up to each state",
            )
        one_step = tuple(map(tuple, self.one_step)) if _pairs(self.one_step) else None
        if one_step is None:
            raise SettingsError(
                "one_step is no list of (step, squared length)",
                where="memspace.Run",
                remedy="leave it out, or give a pair of numbers for each step that was looked at",
            )
        for name, value in (("time", time), ("step", step), ("one_step", one_step)):
            object.__setattr__(self, name, value)

    def mapped(self, change: Callable[[Tensor], Tensor]) -> Run:
        """Apply a change to every tensor of the run; states on disk stay there.

        Args:
            change: of a tensor.

        Returns:
            A new run.
        """
        states = self.states
        if isinstance(states, States):
            return replace(self, states=states.mapped(change))
        return replace(self, states=tuple({k: change(v) for k, v in s.items()} for s in states))


def _check_states(states: Any) -> None:
    """Refuse values that are no sequence of state dicts; those left on disk are not read for it."""
    known = isinstance(states, States) or (
        isinstance(states, Sequence)
        and not isinstance(states, str)
        and all(isinstance(s, Mapping) and all(isinstance(t, Tensor) for t in s.values()) for s in states)
    )
    if not known or not len(states):
        raise SettingsError(
            f"states is {described(states)}, not a list of one state dict or more",
            where="memspace.Run",
            remedy="give copies of model.state_dict(), the initialisation first",
        )


def _pairs(values: Any) -> bool:
    if isinstance(values, str) or not isinstance(values, Sequence):
        return False
    return all(
        isinstance(v, Sequence) and len(v) == 2 and all(isinstance(x, int | float) and x == x for x in v)
        for v in values
    )
