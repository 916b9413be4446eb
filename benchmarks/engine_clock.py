"""Seconds in turn, peak memory, and a limit on how long a peer may take."""

from __future__ import annotations

import contextlib
import ctypes
import gc
import math
import signal
import statistics
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any

import torch

from benchmarks.engine_outcome import Outcome, Work

__all__ = ["Timing", "at_most_seconds", "clocked", "matmul_rate", "peak_memory"]

_STATUS, _CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")


@dataclass
class Timing:
    """Seconds of every repeat, eigendecompositions apart; peak memory above the start, and ``whole``, MiB."""

    seconds: list[float] = field(default_factory=list)
    apart: list[float] = field(default_factory=list)
    memory: float = float("nan")
    whole: float = float("nan")
    result: Any = None
    error: str = ""

    @property
    def median(self) -> float:
        return statistics.median(self.seconds) if self.seconds else float("nan")

    @property
    def median_apart(self) -> float:
        return statistics.median(self.apart) if self.apart else 0.0

    @property
    def spent(self) -> float:
        return sum(self.seconds) + sum(self.apart)

    @property
    def spread(self) -> tuple[float, float]:
        """Least and most of the repeats."""
        return (min(self.seconds), max(self.seconds)) if self.seconds else (float("nan"), float("nan"))


def clocked(work: Work) -> tuple[float, Outcome]:
    """Seconds without the part reported apart."""
    start = time.perf_counter()
    outcome = work()
    return time.perf_counter() - start - outcome.apart, outcome


@contextlib.contextmanager
def at_most_seconds(limit: float) -> Iterator[None]:
    """TimeoutError inside once the limit is over (between two operations of Python; main thread only)."""

    def stop(number: int, frame: FrameType | None) -> None:
        raise TimeoutError(f"over {limit:g} s")

    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, limit if math.isfinite(limit) else 0)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def _kib(name: str) -> float:
    line = next(x for x in _STATUS.read_text().splitlines() if x.startswith(name))
    return float(line.split()[1])


@contextlib.contextmanager
def peak_memory(into: Timing) -> Iterator[None]:
    """The process's resident high-water mark over its size at the start, MiB; Linux only, else NaN.

    Freed memory is handed back to the system first (malloc_trim), then the kernel's mark is reset (writing 5 to
    clear_refs), so that each item is charged for its own peak and for nothing that ran before it.
    """
    gc.collect()
    try:
        ctypes.CDLL(None).malloc_trim(0)
        _CLEAR.write_text("5")
        before = _kib("VmRSS")
    except (OSError, AttributeError, StopIteration):
        yield
        return
    yield
    into.whole = _kib("VmHWM") / 1024
    into.memory = into.whole - before / 1024


def matmul_rate(repeats: int = 7, size: int = 2048) -> float:
    """Float32 operations per second of a square matrix product, median."""
    a, b = torch.randn(size, size), torch.randn(size, size)
    a @ b
    seconds = []
    for _ in range(repeats):
        start = time.perf_counter()
        a @ b
        seconds.append(time.perf_counter() - start)
    return 2 * size**3 / statistics.median(seconds)
