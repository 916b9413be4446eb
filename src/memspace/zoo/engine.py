"""Where pieces of work run: in processes of this machine, or on what a registered engine reaches."""

from __future__ import annotations

import multiprocessing
import multiprocessing.connection
import os
import signal
import threading
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import closing, contextmanager
from typing import Protocol

import torch

from memspace.errors import SettingsError, WorkerError
from memspace.progress import Progress

__all__ = ["ENGINES", "Engine", "Piece", "engine_named", "run_local", "run_pieces"]


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


Engine = Callable[[Sequence[Piece], int], Generator[Piece, None, None]]


def run_local(pieces: Sequence[Piece], workers: int) -> Generator[Piece, None, None]:
    """Run pieces in processes of this machine, one thread each. Closing the generator ends them at once.

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
    others = set(multiprocessing.active_children())
    with ProcessPoolExecutor(workers, context, _begin) as pool:
        try:
            with _no_interrupts():
                going = {pool.submit(_run, piece): piece for piece in pieces}
            while going:
                done, _ = wait(going, return_when=FIRST_COMPLETED)
                for future in done:
                    future.result()
                    yield going.pop(future)
        except BaseException as error:
            for process in set(multiprocessing.active_children()) - others:
                process.terminate()  # leaving the pool would wait until running pieces are done
            if isinstance(error, BrokenProcessPool):
                remedy = "run the same command again: what is finished is kept and not repeated"
                raise WorkerError("a process of the zoo was killed", where="zoo", remedy=remedy) from error
            raise


@contextmanager
def _no_interrupts() -> Iterator[None]:
    """Hold Ctrl-C back; processes that are started meanwhile never get it: their parent stops them."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _begin() -> None:
    threading.Thread(target=_end_with_parent, daemon=True).start()
    torch.set_num_threads(1)


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        multiprocessing.connection.wait([parent.sentinel])
        os._exit(1)  # killed: nobody would give further pieces, and this process would wait for ever


def _run(piece: Piece) -> int:
    return piece()


def _run_ray(pieces: Sequence[Piece], workers: int) -> Generator[Piece, None, None]:
    from memspace.zoo.ray_engine import run_ray

    return run_ray(pieces, workers)


ENGINES: dict[str, Engine] = {"local": run_local, "ray": _run_ray}


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


def run_pieces(pieces: Sequence[Piece], *, engine: str, workers: int, title: str, progress: Progress) -> None:
    """Run pieces of work to the end, and report every network as it is done.

    Args:
        pieces: in the order in which they are begun.
        engine: name of it.
        workers: pieces that run at the same time.
        title: of the work, for people.
        progress: where it reports.

    Raises:
        WorkerError: a process was killed; what is finished is kept.
    """
    if not pieces:
        return
    handle = progress.start(title, sum(p.networks for p in pieces))
    try:
        with closing(engine_named(engine)(pieces, workers)) as done:
            for piece in done:
                for _ in range(piece.networks):
                    progress.advance(handle)
    finally:
        progress.finish(handle)
