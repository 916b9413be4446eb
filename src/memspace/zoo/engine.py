"""Where pieces of work run: in processes of this machine, or on what a registered engine reaches."""

from __future__ import annotations

import multiprocessing
import signal
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from typing import Protocol

import torch

from memspace.errors import SettingsError, WorkerError

__all__ = ["ENGINES", "Engine", "Piece", "engine_named", "run_local"]


class Piece(Protocol):
    """A piece of work: picklable, keeps its results itself, and does nothing that is done already."""

    @property
    def networks(self) -> int:
        """How many networks it works on."""

    def __call__(self) -> int:
        """Do it.

        Returns:
            On how many networks it worked.
        """


Engine = Callable[[Sequence[Piece], int], Iterator[Piece]]


def run_local(pieces: Sequence[Piece], workers: int) -> Iterator[Piece]:
    """Run pieces in processes of this machine, one thread each.

    Args:
        pieces: in the order in which they are begun.
        workers: processes; 1: in this one.

    Yields:
        Each piece when it is done.

    Raises:
        WorkerError: a process was killed; what is finished is kept.
    """
    if workers == 1 or len(pieces) == 1:
        threads = torch.get_num_threads()
        torch.set_num_threads(1)
        try:
            for piece in pieces:
                piece()
                yield piece
        finally:
            torch.set_num_threads(threads)
        return
    context = multiprocessing.get_context("spawn")  # threads of the parent's torch do not survive a fork
    with ProcessPoolExecutor(workers, context, _begin) as pool:
        try:
            going = {pool.submit(_run, piece): piece for piece in pieces}
            while going:
                done, _ = wait(going, return_when=FIRST_COMPLETED)
                for future in done:
                    future.result()
                    yield going.pop(future)
        except BrokenProcessPool as error:
            remedy = "run the same command again: what is finished is kept and not repeated"
            raise WorkerError("a process of the zoo was killed", where="zoo", remedy=remedy) from error
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


def _begin() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent stops the work
    torch.set_num_threads(1)


def _run(piece: Piece) -> int:
    return piece()


ENGINES: dict[str, Engine] = {"local": run_local}


def engine_named(name: str) -> Engine:
    """Look up an engine.

    Args:
        name: of it.

    Returns:
        The engine.

    Raises:
        SettingsError: there is none of that name.
    """
    if name not in ENGINES:
        listed = ", ".join(sorted(ENGINES))
        raise SettingsError(f"there is no engine {name!r}", where="zoo", remedy=f"name one of {listed}")
    return ENGINES[name]
