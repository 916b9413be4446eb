"""Several processes on torch's own engine: each reads a shard of the data, what they found is made equal on all.

Nothing is shared unless asked for: a process of a larger job may well read a network alone. Inside ``across(group)``
every pass, product and table is; all processes of the group must then make the same calls in the same order.
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
    """What this process is at has failed on another one, which will not come to meet it."""

    exit_code = 16

    def __init__(self) -> None:
        super().__init__("it failed on another process", where="several processes", remedy="see that process")


@dataclass(frozen=True)
class Processes:
    """``size`` processes of which this is number ``rank``; ``group`` as torch knows them."""

    rank: int
    size: int
    group: Any = None

    def shares(self, total: int) -> bool:
        """Whether work on so many examples is divided: every process must have one at least."""
        return self.size > 1 and total >= self.size

    def shard(self, total: int, index: Sequence[int] | Tensor | None = None) -> Tensor:
        """The examples (of those at ``index``) that this process reads: contiguous, sizes differ by one at most."""
        order = torch.arange(total) if index is None else torch.as_tensor(index, dtype=torch.long)
        return order[self.rank * len(order) // self.size : (self.rank + 1) * len(order) // self.size]

    def add(self, total: Tensor) -> Tensor:
        """The sum over all processes, in place; equal on all to the last bit."""
        if self.size == 1:
            return total
        self._meet()
        with _told():
            dist.all_reduce(total, group=self.group)
        return total

    def _meet(self, failed: bool = False) -> bool:
        """Before every exchange: whether what this process is at failed on any of them.

        A process at which an attempt failed skips the exchanges that the others wait for; it meets them here.

        Raises:
            PeerFailedError: it failed on another one, and not here.
        """
        flag = torch.tensor([float(failed)])
        with _told():
            dist.all_reduce(flag, group=self.group)
        if bool(flag > 0) and not failed:
            raise PeerFailedError
        return failed

    def settle(self, name: str, failure: Failure | None) -> Failure | None:
        """Of one attempt: why it failed, on whichever process it did first; None where it did on none.

        Raises:
            WorkerError: processes failed in different attempts, and can go no way together.
        """
        known = failure is not None and failure[1] == _PEER
        try:
            if not known:
                self._meet(failure is not None)
        except PeerFailedError:
            known = True
        if failure is None and not known:
            return None
        held: list[Any] = [None] * self.size
        with _told():
            dist.all_gather_object(held, (name, None if known else failure), group=self.group)
        if len({at for at, _ in held}) > 1:
            raise WorkerError(
                f"the processes failed in {' and '.join(sorted({at for at, _ in held}))} at once",
                where=f"{self.size} processes",
                remedy="finished stages are kept: the same command goes on; run in one process to see why",
            )
        reason: Failure = next(why for _, why in held if why is not None)
        return reason

    def from_first(self, value: T) -> T:
        """What process 0 has, on every process. Anything that can be pickled; it never leaves the group."""
        held = [value]
        self._meet()
        with _told():
            dist.broadcast_object_list(held, group=self.group, group_src=0)
        return held[0]

    def gather(self, tensors: Mapping[str, Tensor]) -> list[dict[str, Tensor]]:
        """Every process's tensors, in the order of the processes; shapes may differ between them."""
        shapes: list[Any] = [None] * self.size
        self._meet()
        with _told():
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
        """Raise on every process unless all hold the same.

        Args:
            parts: what is compared, by what a message calls it; fingerprints of what is large.

        Raises:
            WorkerError: names the first process that differs from process 0, and in what.
        """
        if self.size == 1:
            return
        held: list[Any] = [None] * self.size
        with _told():
            dist.all_gather_object(held, dict(parts), group=self.group)
        for rank, theirs in enumerate(held):
            for name, value in held[0].items():
                if theirs.get(name) != value:
                    short = max(len(str(value)), len(str(theirs.get(name)))) <= 80
                    told = f" ({theirs.get(name)}; process 0: {value})" if short and name.startswith("number") else ""
                    raise WorkerError(
                        f"process {rank} has other {name} than process 0{told}",
                        where=f"{self.size} processes",
                        remedy="let every process build the same model and data (seed them, load the same files)",
                    )

    def join(self, whole: Statistic[Any], part: Statistic[Any]) -> None:
        """Take what every process's ``part`` has seen into ``whole``, as if one process had read all shards."""
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
        """Tables of the shards, one below the other."""
        if self.size == 1:
            return dict(columns)
        parts = self.gather(columns)
        return {key: torch.cat([p[key] for p in parts]) for key in columns}


_PEER = "it failed on another process (several processes)"
ALONE = Processes(0, 1)
_current: ContextVar[Processes] = ContextVar("processes", default=ALONE)


def current() -> Processes:
    """The processes that share the work now; one of size 1 outside ``across``."""
    return _current.get()


@contextmanager
def across(group: Any = None) -> Iterator[Processes]:
    """Share the work of everything called inside among the processes of a group of ``torch.distributed``.

    Args:
        group: a process group; by default all processes.

    Raises:
        WorkerError: torch.distributed was not initialised, or another process ended while this one waited for it.
    """
    if not (dist.is_available() and dist.is_initialized()):
        raise WorkerError(
            "there is no group of processes",
            where="memspace.across",
            remedy="start the program by torchrun and call torch.distributed.init_process_group first",
        )
    team = Processes(dist.get_rank(group), dist.get_world_size(group), group)
    token = _current.set(team)
    attempts = settled_by_all.set(team.settle if team.size > 1 else settled_by_all.get())
    try:
        yield team
    finally:
        settled_by_all.reset(attempts)
        _current.reset(token)


@contextmanager
def _told() -> Iterator[None]:
    """A peer's end reaches the others as a broken connection; say so."""
    try:
        yield
    except (RuntimeError, pickle.UnpicklingError) as error:
        reason = re.sub(r"^\[[^]]*\]\s*", "", str(error).strip()).split("\n")[0].split(". ")[0]
        raise WorkerError(
            f"another process ended while this one waited for it ({reason[:160]})",
            where=f"process {dist.get_rank()} of {dist.get_world_size()}",
            remedy="finished stages are kept: the same command goes on",
        ) from error
