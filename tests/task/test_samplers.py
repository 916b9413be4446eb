"""A loader is read exactly as its sampler gives it, or refused in one sentence."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.utils.data import (
    BatchSampler,
    DataLoader,
    DistributedSampler,
    RandomSampler,
    Sampler,
    SequentialSampler,
    SubsetRandomSampler,
    TensorDataset,
    WeightedRandomSampler,
)

from memspace.errors import DataError
from memspace.task import samplers
from memspace.task.data import Data

N = 23
X, Y = torch.arange(N, dtype=torch.float32)[:, None], torch.arange(N) % 3
DATA = TensorDataset(X, Y)
PART = [5, 0, 17, 22, 5]  # with a repeat


class Own(Sampler[int]):
    def __init__(self, order: Callable[[], list[Any]]) -> None:
        self.order = order

    def __iter__(self) -> Iterator[Any]:
        return iter(self.order())


def _positive(some: float = 1.0) -> Tensor:
    weights = torch.zeros(N)
    weights[[3, 9, 20]] = torch.tensor([1.0, some, 2.0])
    return weights


FIXED: dict[str, tuple[Callable[[], DataLoader[Any]], list[int]]] = {
    "in order": (lambda: DataLoader(DATA, 4), list(range(N))),
    "shuffled": (lambda: DataLoader(DATA, 4, shuffle=True), list(range(N))),
    "in order, the last batch dropped": (lambda: DataLoader(DATA, 4, drop_last=True), list(range(20))),
    "shuffled, another last batch dropped each time": (
        lambda: DataLoader(DATA, 4, shuffle=True, drop_last=True),
        list(range(N)),
    ),
    "shuffled twice over": (
        lambda: DataLoader(DATA, 4, sampler=RandomSampler(DATA, num_samples=2 * N)),
        list(range(N)),
    ),
    "a subset": (lambda: DataLoader(DATA, 2, sampler=SubsetRandomSampler([7, 2, 5])), [2, 5, 7]),
    "a list": (lambda: DataLoader(DATA, 2, sampler=PART), PART),
    "an array": (lambda: DataLoader(DATA, 2, sampler=np.array(PART)), PART),
    "a tensor": (lambda: DataLoader(DATA, 2, sampler=torch.tensor(PART)), PART),
    "a range": (lambda: DataLoader(DATA, 2, sampler=range(3, 9)), list(range(3, 9))),
    "own, repeatable": (lambda: DataLoader(DATA, 2, sampler=Own(lambda: PART)), PART),
    "own, shuffled by Python": (
        lambda: DataLoader(DATA, 2, sampler=Own(lambda: random.sample(PART, len(PART)))),
        sorted(PART),
    ),
    "own, shuffled by NumPy": (
        lambda: DataLoader(DATA, 2, sampler=Own(lambda: np.random.permutation(PART).tolist())),  # noqa: NPY002
        sorted(PART),
    ),
    "own, dropping the last batch": (lambda: DataLoader(DATA, 2, sampler=Own(lambda: PART), drop_last=True), PART[:4]),
    "batches": (lambda: DataLoader(DATA, batch_sampler=[[1, 2], [0], [9, 8]]), [1, 2, 0, 9, 8]),
    "a batch sampler over a subset": (
        lambda: DataLoader(DATA, batch_sampler=BatchSampler(SubsetRandomSampler([4, 1, 3]), 2, False)),
        [1, 3, 4],
    ),
    "a batch sampler that drops": (
        lambda: DataLoader(DATA, batch_sampler=BatchSampler(SequentialSampler(DATA), 5, True)),
        list(range(20)),
    ),
    "own batches": (lambda: DataLoader(DATA, batch_sampler=Own(lambda: [[3, 4], [1]])), [3, 4, 1]),
    "own batches, shuffled": (
        lambda: DataLoader(DATA, batch_sampler=Own(lambda: random.sample([[3, 4], [1], [9, 0], [7]], 4))),
        [0, 1, 3, 4, 7, 9],
    ),
    "a rank's share": (
        lambda: DataLoader(DATA, 4, sampler=DistributedSampler(DATA, 2, 1, shuffle=False)),
        [*range(1, N, 2), 0],
    ),
    "weights without replacement over all that have one": (
        lambda: DataLoader(DATA, 4, sampler=WeightedRandomSampler(_positive(), 3, replacement=False)),
        [3, 9, 20],
    ),
}


@pytest.mark.parametrize("kind", FIXED)
def test_exactly_the_examples_the_loader_gives_are_read(kind: str) -> None:
    make, want = FIXED[kind]
    torch.manual_seed(1)
    states = torch.get_rng_state(), random.getstate(), np.random.get_state()[1].tolist()  # noqa: NPY002
    data = Data(make())
    assert torch.equal(torch.cat([b.x for b in data.batches(4)])[:, 0].long(), torch.tensor(want))
    assert torch.equal(data.labels(), Y[want])
    assert torch.equal(torch.get_rng_state(), states[0])
    assert (random.getstate(), np.random.get_state()[1].tolist()) == states[1:]  # noqa: NPY002
    if "another" not in kind and "twice" not in kind:
        given = torch.cat([x for x, _ in make()])[:, 0].long().tolist()
        assert Counter(given) == Counter(want)


def test_a_shuffled_share_of_a_rank_is_that_rank_s() -> None:
    share = DistributedSampler(DATA, 2, 0, shuffle=True)
    data = Data(DataLoader(DATA, 4, sampler=share))
    assert data.batch(range(len(data))).x[:, 0].long().tolist() == list(share)


def test_a_sampler_s_own_generator_is_left_where_it_was() -> None:
    own = torch.Generator().manual_seed(4)

    class Drawn(RandomSampler):
        pass

    for loader in (
        DataLoader(DATA, 4, shuffle=True, generator=own),
        DataLoader(DATA, 4, sampler=Drawn(DATA, generator=own)),
    ):
        before = own.get_state()
        assert len(Data(loader)) == N
        assert torch.equal(own.get_state(), before)


REFUSED: dict[str, tuple[Callable[[], DataLoader[Any]], str]] = {
    "weights": (lambda: DataLoader(DATA, sampler=WeightedRandomSampler(_positive(), 40)), "by weight"),
    "replacement": (lambda: DataLoader(DATA, sampler=RandomSampler(DATA, replacement=True)), "with replacement"),
    "a part drawn anew": (lambda: DataLoader(DATA, sampler=RandomSampler(DATA, num_samples=9)), r"\(9 of 23\)"),
    "own draws": (lambda: DataLoader(DATA, sampler=Own(lambda: random.choices(range(N), k=30))), "other examples"),
    "nothing": (lambda: DataLoader(DATA, sampler=Own(list)), "gives no examples"),
    "an empty subset": (lambda: DataLoader(DATA, sampler=SubsetRandomSampler([])), "gives no examples"),
    "all dropped": (lambda: DataLoader(DATA, 64, drop_last=True), "gives no examples"),
    "all dropped, shuffled": (lambda: DataLoader(DATA, 64, shuffle=True, drop_last=True), "gives no examples"),
    "a fault": (lambda: DataLoader(DATA, sampler=Own(lambda: [1 // 0])), "ZeroDivisionError"),
    "beyond the end": (lambda: DataLoader(DATA.tensors[0], sampler=[3, 99]), "index 99"),  # type: ignore[arg-type]
}


@pytest.mark.parametrize("kind", REFUSED)
def test_what_is_not_one_set_of_examples_is_refused(kind: str) -> None:
    make, words = REFUSED[kind]

    def read() -> None:
        data = Data(make(), "training data")
        data.batch(range(len(data)))

    with pytest.raises(DataError, match=words) as caught:
        read()
    assert "\n" not in str(caught.value)


def test_a_sampler_without_end_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    class Endless(Sampler[int]):
        def __iter__(self) -> Iterator[int]:
            while True:
                yield 0

    monkeypatch.setattr(samplers, "LONGEST", 1000)
    with pytest.raises(DataError, match="more than 1,000 indices"):
        Data(DataLoader(DATA, 4, sampler=Endless()))
