"""A measure that fails on one of several processes is absent on all, and none waits for the other."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest
import torch
import torch.distributed as dist

import memspace
from memspace.attempt import attempt
from memspace.errors import WorkerError
from memspace.measurement import Unmeasured
from memspace.passes.processes import current
from tests import warm

WAIT = timedelta(seconds=40)  # long on a busy machine; a process left waiting fails the test instead of hanging it


def _joined(rank: int, size: int, folder: str) -> None:
    torch.set_num_threads(1)
    store = dist.FileStore(str(Path(folder) / "store"), size)
    dist.init_process_group("gloo", store=store, rank=rank, world_size=size, timeout=WAIT)


def _sum(times: int = 1) -> float:
    total = torch.ones(1)
    for _ in range(times):
        total = current().add(total)
    return float(total)


def _member(rank: int, size: int, folder: str) -> None:
    _joined(rank, size, folder)

    def before() -> float:
        if rank == size - 1:
            raise RuntimeError("nan in this shard")
        return _sum(3)

    def between() -> float:
        first = _sum()
        if rank == 0:
            raise ArithmeticError("division by zero")
        return first + _sum(2)

    def after() -> float:
        found = _sum(2)
        if rank == 1:
            raise RuntimeError("too late")
        return found

    def everywhere() -> float:
        raise RuntimeError("the same on all")

    def nested() -> tuple[object, float]:
        return attempt("inner", between), _sum()

    found = []
    with memspace.across():
        for work in (before, between, after, everywhere, nested, _sum):
            found += [attempt(work.__name__, work), _sum()]
    torch.save(found, Path(folder) / f"{rank}.pt")
    dist.destroy_process_group()


@pytest.mark.parametrize("size", [2, 3])
def test_all_processes_go_without_what_one_cannot_measure(size, tmp_path) -> None:
    warm.team(_member, (size, str(tmp_path)), size)
    first, *others = [torch.load(tmp_path / f"{rank}.pt", weights_only=False) for rank in range(size)]
    for other in others:
        assert other == first
    failed, sums = first[0:8:2], first[1::2]
    for absent, reason in zip(
        failed, ("nan in this shard", "division by zero", "too late", "the same on all"), strict=True
    ):
        assert isinstance(absent, Unmeasured)
        assert reason in absent.reason
    inner, outer = first[8]
    assert isinstance(inner, Unmeasured)
    assert "division by zero" in inner.reason
    assert outer == first[10] == size  # what comes after is exchanged as if nothing had happened
    assert sums == [size] * 6


def _apart(rank: int, folder: str) -> None:
    _joined(rank, 2, folder)

    def fails() -> float:
        raise RuntimeError("here")

    told = ""
    with memspace.across():
        try:
            attempt("one" if rank else "other", fails)
        except WorkerError as error:
            told = str(error)
    torch.save(told, Path(folder) / f"{rank}.pt")
    dist.destroy_process_group()


def test_processes_that_fail_in_different_places_say_so(tmp_path) -> None:
    warm.team(_apart, (str(tmp_path),), 2)
    told = [torch.load(tmp_path / f"{rank}.pt") for rank in (0, 1)]
    assert told[0].startswith("the processes failed in one and other at once")
    assert told[1].startswith("the processes failed in one and other at once")
