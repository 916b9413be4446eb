"""Pieces of work on the machines of a Ray cluster, or on this one where there is none.

Every machine must reach the store's folder and the data sets under the same paths (a shared file system) and have the
same memspace installed: pieces keep their results in that folder themselves, Ray carries nothing but the pieces.
"""

from __future__ import annotations

import logging
import os
import socket
from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager
from itertools import islice
from typing import TYPE_CHECKING, Any

import torch

from memspace.errors import MemspaceError, MissingPackageError, WorkerError

if TYPE_CHECKING:
    from memspace.zoo.engine import Piece

__all__ = ["run_ray"]

PATIENCE = 20.0  # seconds for a cluster to answer
OBJECTS = 100 * 2**20  # bytes of shared memory: nothing large is exchanged


def run_ray(pieces: Sequence[Piece], workers: int) -> Generator[Piece, None, None]:
    """Run pieces by Ray, one thread each: a piece whose process or machine is lost runs again elsewhere.

    A cluster that this program is connected to is used, then the one that the environment variable RAY_ADDRESS names;
    otherwise one is started on this machine, and ended. Every machine must reach the store under the same path.

    Args:
        pieces: in the order in which they are begun.
        workers: pieces that run at the same time.

    Yields:
        Each piece when it is done.

    Raises:
        MissingPackageError: Ray is not installed.
        WorkerError: no cluster answers, or it was lost; what is finished is kept.
    """
    ray = _imported()
    with _connected(ray, workers) as stays:
        remote = ray.remote(num_cpus=1, max_retries=-1, retry_exceptions=False)(_run)
        waiting = iter(pieces)
        running: dict[Any, Piece] = {}
        try:
            while True:
                running |= {remote.remote(piece): piece for piece in islice(waiting, workers - len(running))}
                if not running:
                    return
                finished, _ = ray.wait(list(running))
                for reference in finished:
                    piece = running.pop(reference)
                    _settle(ray, reference)
                    yield piece
        finally:
            if stays:  # otherwise the end of the connection ends them
                for reference in running:
                    ray.cancel(reference)  # force could abort this program: Ray fails where a piece ends just then


def _run(piece: Piece) -> int:
    torch.set_num_threads(1)
    return piece()


def _imported() -> Any:
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # memspace sends nothing anywhere
    try:
        import ray
    except ImportError as error:
        raise MissingPackageError(
            "ray is not installed", where="zoo", remedy="install it by pip install 'memspace[ray]'"
        ) from error
    return ray


@contextmanager
def _connected(ray: Any, workers: int) -> Iterator[bool]:
    """Be connected to a cluster; yields whether the connection was there before, and stays."""
    if ray.is_initialized():
        yield True
        return
    address = os.environ.get("RAY_ADDRESS") or "local"
    settings: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR}
    if address == "local":
        settings |= {"num_cpus": workers, "include_dashboard": False, "object_store_memory": OBJECTS}
    try:
        _probe(address)
        ray.init(address, **settings)
    except (OSError, RuntimeError, ValueError, ray.exceptions.RayError) as error:
        what = f"no Ray cluster answers ({(str(error).splitlines() or ['no reason'])[0]})"
        remedy = "start one by `ray start`, or unset RAY_ADDRESS to use this machine"
        raise WorkerError(what, where=f"RAY_ADDRESS={address}", remedy=remedy) from error
    try:
        yield False
    finally:
        ray.shutdown()


def _probe(address: str) -> None:
    """Raise where nothing listens: Ray itself would try for many minutes."""
    host, separator, port = address.rpartition("://")[2].rpartition(":")
    if separator and port.isdigit():
        socket.create_connection((host.strip("[]"), int(port)), PATIENCE).close()


def _settle(ray: Any, reference: Any) -> None:
    """Raise what a piece raised, as it was raised there."""
    try:
        ray.get(reference)
    except ray.exceptions.RayTaskError as error:
        if isinstance(error.cause, MemspaceError):
            raise error.cause from None
        raise
    except ray.exceptions.RayError as error:
        what = f"the Ray cluster lost a piece of work ({str(error).splitlines()[0]})"
        remedy = "run the same command again: what is finished is kept and not repeated"
        raise WorkerError(what, where="zoo", remedy=remedy) from error
