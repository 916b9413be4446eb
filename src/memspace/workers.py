"""The command line under torchrun: joins the group of processes, and lets one of them speak for all."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

import torch
import torch.distributed as dist
from torch.distributed.rendezvous import rendezvous

from memspace.errors import WorkerError
from memspace.passes.processes import across

__all__ = ["group_of_torchrun", "local_device"]


def local_device(device: str) -> str:
    """Name this process's own GPU where torchrun started several.

    Args:
        device: as the user wrote it.

    Returns:
        ``cuda:k`` for ``cuda`` under torchrun; else the same.
    """
    rank = os.environ.get("LOCAL_RANK")
    return f"cuda:{rank}" if device == "cuda" and rank is not None else device


@contextmanager
def group_of_torchrun() -> Iterator[Callable[[], bool]]:
    """Share everything inside among torchrun's processes; all but the first are silent.

    Yields:
        A function that tells whether this process is the first to report a failure: one sentence for the whole run,
        whoever lives to say it.

    Raises:
        WorkerError: (inside) another process ended.
    """
    store, rank = _met()
    signal.signal(signal.SIGTERM, _terminated)

    def speaks() -> bool:
        try:
            reports: int = store.add("memspace/failure", 1)
            return reports == 1
        except RuntimeError:  # the store went with its process
            return bool(rank == 0)

    with contextlib.ExitStack() as stack:
        if rank > 0:
            nowhere = stack.enter_context(Path(os.devnull).open("w"))
            stack.enter_context(contextlib.redirect_stdout(nowhere))
            stack.enter_context(contextlib.redirect_stderr(nowhere))
        stack.enter_context(across())
        try:
            yield speaks
        except SystemExit as end:
            if end.code in (None, 0):
                dist.destroy_process_group()
            raise
        except BaseException:
            # The failure is about to be reported: torchrun's signal because of another process comes too late.
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
            raise


def _met() -> tuple[Any, int]:
    """Join the group that the environment speaks of: its store and this process's rank.

    Raises:
        WorkerError: the environment is incomplete, or nobody answers.
    """
    missing = [name for name in ("MASTER_ADDR", "MASTER_PORT") if not os.environ.get(name)]
    if missing:
        raise WorkerError(
            f"RANK and WORLD_SIZE are set but {' and '.join(missing)} not",
            where="environment",
            remedy="start by torchrun, or unset RANK and WORLD_SIZE to work alone",
        )
    try:
        store, rank, size = next(rendezvous("env://"))
        backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
        dist.init_process_group(backend, store=store, rank=rank, world_size=size)
    except (RuntimeError, ValueError, OSError) as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0][:160]
        raise WorkerError(
            f"the processes do not find each other ({reason})",
            where=f"{os.environ['MASTER_ADDR']}:{os.environ['MASTER_PORT']}",
            remedy="start all by torchrun, or unset RANK and WORLD_SIZE to work alone",
        ) from error
    return store, rank


def _terminated(_signal: int, _frame: FrameType | None) -> None:
    """Torchrun ends the others when one process has ended."""
    raise WorkerError(
        "another process ended, or the run was stopped",
        where=f"process {dist.get_rank()} of {dist.get_world_size()}",
        remedy="finished stages are kept: the same command goes on",
    )
