"""Several processes by ``torch.distributed``: every process reads a shard of the data, and all get the same results.

Nothing is shared by default: a process of a larger job may read a network alone. Inside ``across(group)`` every pass,
product and table is shared; all processes of the group must then make the same calls in the same order.
"""

from __future__ import annotations

import copy
import pickle
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

from memspace.attempt import Failure, settled_by_all
from memspace.errors import MemspaceError, WorkerError
from memspace.passes.statistic import Statistic

__all__ = ["ALONE", "Processes", "across", "current"]

T = TypeVar("T")


class PeerFailedError(MemspaceError):
    """The current work has failed on another process, which will not join the exchange."""

    exit_code = 16

    def __init__(self) -> None:
        super().__init__("it failed on another process", where="several processes", remedy="see that process")


@dataclass(frozen=True)
class Processes:
    """A process group, as one of its processes sees it.

    Args:
        rank: number of this process.
        size: number of processes.
        group: torch's process group; None: the default one.
    """

    rank: int
    size: int
    group: Any = None

    def shares(self, total: int) -> bool:
        """Tell whether work is divided: every process must have one example at least.

        Args:
            total: number of examples.

        Returns:
            False in a single process, or where there are fewer examples than processes.
        """
        return self.size > 1 and total >= self.size

    def shard(self, total: int, index: Sequence[int] | Tensor | None = None) -> Tensor:
        """Choose the examples that this process reads: a contiguous part, whose sizes differ by one at most.

        Args:
            total: number of examples.
            index: their positions; None: 0 to ``total`` − 1.

        Returns:
            Positions of this process's part.
        """
        order = torch.arange(total) if index is None else torch.as_tensor(index, dtype=torch.long)
        return order[self.rank * len(order) // self.size : (self.rank + 1) * len(order) // self.size]

    def add(self, total: Tensor) -> Tensor:
        """Sum a tensor over all processes, in place.

        Args:
            total: this process's summand.

        Returns:
            The sum, equal on all processes to the last bit.

        Raises:
            WorkerError: another process ended.
        """
        if self.size == 1:
            return total
        self._meet()
        with _lost_connections():
            dist.all_reduce(total, group=self.group)
        return total

    def _meet(self, failed: bool = False) -> bool:
        """Exchange, before every other exchange, whether the current attempt failed on any process.

        A process whose attempt failed skips the exchanges that the others wait for; it meets them here.

        Raises:
            PeerFailedError: it failed on another process, and not here.
        """
        flag = torch.tensor([float(failed)])
        with _lost_connections():
            dist.all_reduce(flag, group=self.group)
        if bool(flag > 0) and not failed:
            raise PeerFailedError
        return failed

    def settle(self, name: str, failure: Failure | None) -> Failure | None:
        """Make the outcome of one attempt the same on all processes.

        Args:
            name: of the attempt.
            failure: why it failed on this process; None: it did not.

        Returns:
            The failure of the first process on which it failed; None where it failed on none.

        Raises:
            WorkerError: processes failed in different attempts and cannot continue together.
        """
        known = failure is not None and failure[1] == _PEER
        try:
            if not known:
                self._meet(failure is not None)
        except PeerFailedError:
            known = True
        if failure is None and not known:
            return None
        outcomes: list[Any] = [None] * self.size
        with _lost_connections():
            dist.all_gather_object(outcomes, (name, None if known else failure), group=self.group)
        if len({attempt for attempt, _ in outcomes}) > 1:
            raise WorkerError(
                f"the processes failed in {' and '.join(sorted({attempt for attempt, _ in outcomes}))} at once",
                where=f"{self.size} processes",
                remedy="finished stages are stored: run the same command to continue, or one process to see why",
            )
        reason: Failure = next(why for _, why in outcomes if why is not None)
        return reason

    def from_first(self, value: T) -> T:
        """Return the value of process 0 on every process.

        Args:
            value: anything that can be pickled; it never leaves the group.

        Returns:
            The value of process 0.

        Raises:
            WorkerError: another process ended.
        """
        values = [value]
        self._meet()
        with _lost_connections():
            dist.broadcast_object_list(values, group=self.group, group_src=0)
        return values[0]

    def gather(self, tensors: Mapping[str, Tensor]) -> list[dict[str, Tensor]]:
        """Collect the tensors of all processes.

        Args:
            tensors: of this process by name; names are the same on all, shapes may differ.

        Returns:
            The tensors of every process, in order of rank.

        Raises:
            WorkerError: another process ended.
        """
        shapes: list[Any] = [None] * self.size
        self._meet()
        with _lost_connections():
            dist.all_gather_object(shapes, {k: (t.shape, t.dtype) for k, t in tensors.items()}, group=self.group)
            out: list[dict[str, Tensor]] = []
            for rank, known in enumerate(shapes):
                part = {}
                for key, (shape, dtype) in known.items():
                    like = next(iter(tensors.values()))
                    t = tensors[key].contiguous() if rank == self.rank else like.new_empty(shape, dtype=dtype)
                    dist.broadcast(t, group_src=rank, group=self.group)
                    part[key] = t
                out.append(part)
        return out

    def agree(self, parts: Mapping[str, str]) -> None:
        """Raise on every process unless all hold the same values.

        Args:
            parts: values by the name that a message gives them; fingerprints of large ones.

        Raises:
            WorkerError: names the first process that differs from process 0, and in what.
        """
        if self.size == 1:
            return
        gathered: list[Any] = [None] * self.size
        with _lost_connections():
            dist.all_gather_object(gathered, dict(parts), group=self.group)
        for rank, theirs in enumerate(gathered):
            for name, value in gathered[0].items():
                if theirs.get(name) != value:
                    short = max(len(str(value)), len(str(theirs.get(name)))) <= 80
                    both = f" ({theirs.get(name)}; process 0: {value})" if short and name.startswith("number") else ""
                    raise WorkerError(
                        f"process {rank} has other {name} than process 0{both}",
                        where=f"{self.size} processes",
                        remedy="let every process build the same model and data (seed them, load the same files)",
                    )

    def join(self, whole: Statistic[Any], part: Statistic[Any]) -> None:
        """Merge the parts of all processes, as if one process had read all shards.

        Args:
            whole: the statistic, updated in place.
            part: the same statistic, updated with this process's shard.

        Raises:
            WorkerError: another process ended.
        """
        if part.additive:
            state = part.state()
            for key in sorted(state):
                state[key] = self.add(state[key].clone())
            part.restore(state)
            whole.merge(part)
            return
        for state in self.gather(part.state()):
            piece = copy.copy(part)
            piece.restore(state)
            whole.merge(piece)

    def concatenated(self, columns: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Join tables of the shards, in order of rank.

        Args:
            columns: of this process, examples first.

        Returns:
            The columns over all examples.

        Raises:
            WorkerError: another process ended.
        """
        if self.size == 1:
            return dict(columns)
        parts = self.gather(columns)
        return {key: torch.cat([p[key] for p in parts]) for key in columns}


_PEER = "it failed on another process (several processes)"
ALONE = Processes(0, 1)
_current: ContextVar[Processes] = ContextVar("processes", default=ALONE)


def current() -> Processes:
    """Return the processes that share the work now.

    Returns:
        The group; one of size 1 outside ``across``.
    """
    return _current.get()


@contextmanager
def across(group: Any = None) -> Iterator[Processes]:
    """Share the work of everything called inside among the processes of a group of ``torch.distributed``.

    Args:
        group: a process group of ``torch.distributed``; None: all processes.

    Yields:
        The group.

    Raises:
        WorkerError: torch.distributed was not initialised, or another process ended while this one waited for it.
    """
    if not (dist.is_available() and dist.is_initialized()):
        raise WorkerError(
            "there is no group of processes",
            where="memspace.across",
            remedy="start the program by torchrun and call torch.distributed.init_process_group first",
        )
    processes = Processes(dist.get_rank(group), dist.get_world_size(group), group)
    token = _current.set(processes)
    attempts = settled_by_all.set(processes.settle if processes.size > 1 else settled_by_all.get())
    try:
        yield processes
    finally:
        settled_by_all.reset(attempts)
        _current.reset(token)


@contextmanager
def _lost_connections() -> Iterator[None]:
    """Raise a broken connection, which is how another process's end shows, as a WorkerError that says so."""
    try:
        yield
    except (RuntimeError, pickle.UnpicklingError) as error:
        reason = re.sub(r"^\[[^]]*\]\s*", "", str(error).strip()).split("\n")[0].split(". ")[0]
        raise WorkerError(
            f"another process ended while this one waited for it ({reason[:160]})",
            where=f"process {dist.get_rank()} of {dist.get_world_size()}",
            remedy="finished stages are stored: run the same command to continue",
        ) from error
