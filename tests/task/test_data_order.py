"""Examples come in index order, whatever the user passes."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from torch import Tensor
from torch.utils.data import (
    DataLoader,
    Dataset,
    IterableDataset,
    Subset,
    SubsetRandomSampler,
    TensorDataset,
)

from memspace.errors import DataError
from memspace.task.data import Data, call_model, move, take

N = 11


def _pair() -> tuple[Tensor, Tensor]:
    x = torch.arange(N * 3, dtype=torch.float32).reshape(N, 3)
    return x, torch.arange(N) % 4


class Items(Dataset[tuple[list[Tensor], int]]):
    """Items whose input is a list of two tensors and whose label is an int."""

    def __len__(self) -> int:
        return N

    def __getitem__(self, i: int) -> tuple[list[Tensor], int]:
        x, y = _pair()
        return [x[i], 2 * x[i]], int(y[i])


class Stream(IterableDataset[tuple[Tensor, Tensor]]):
    """A stream of known length."""

    def __len__(self) -> int:
        return N

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        return iter([(a, b) for a, b in zip(*_pair(), strict=True)])


@pytest.mark.parametrize("size", [1, 4, N, 100])
def test_a_pair_of_tensors_is_read_in_order(size: int) -> None:
    x, y = _pair()
    data = Data((x, y))
    parts = list(data.batches(size))
    assert torch.equal(torch.cat([p.index for p in parts]), torch.arange(N))
    assert torch.equal(torch.cat([p.x for p in parts]), x)
    assert torch.equal(torch.cat([p.y for p in parts]), y)
    assert max(len(p) for p in parts) == min(size, N)


@pytest.mark.parametrize("wrap", ["tensors", "subset"])
def test_a_shuffling_loader_is_read_in_index_order(wrap: str) -> None:
    x, y = _pair()
    dataset: Dataset[tuple[Tensor, ...]] = TensorDataset(x, y)
    if wrap == "subset":
        dataset = Subset(dataset, list(range(N)))
    data = Data(DataLoader(dataset, batch_size=3, shuffle=True))
    state = torch.get_rng_state()
    for _ in range(2):
        assert torch.equal(torch.cat([p.x for p in data.batches(4)]), x)
    assert torch.equal(data.labels(), y)
    assert torch.equal(state, torch.get_rng_state())


def test_a_loader_that_draws_from_a_subset_gives_only_that_subset() -> None:
    x, y = _pair()
    data = Data(DataLoader(TensorDataset(x, y), batch_size=2, sampler=SubsetRandomSampler([7, 2, 5])))
    assert len(data) == 3
    assert torch.equal(next(data.batches(9)).x, x[[2, 5, 7]])


def test_a_loader_without_batching_gives_ready_made_batches() -> None:
    x, y = _pair()
    data = Data(DataLoader(list(zip(x.split(4), y.split(4), strict=True)), batch_size=None))
    assert len(data) == N
    assert torch.equal(next(data.batches(N)).x, x)


def test_a_loader_s_own_collate_function_is_kept() -> None:
    x, y = _pair()

    def collate(items: list[tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor]:
        return torch.stack([-a for a, _ in items]), torch.stack([b for _, b in items])

    data = Data(DataLoader(TensorDataset(x, y), batch_size=3, shuffle=True, collate_fn=collate))
    assert torch.equal(next(data.batches(N)).x, -x)


def test_an_iterable_loader_is_read_once_and_kept() -> None:
    x, y = _pair()
    data = Data(DataLoader(Stream(), batch_size=4))
    assert len(data) == N
    for _ in range(2):
        assert torch.equal(torch.cat([p.x for p in data.batches(3)]), x)
    assert torch.equal(data.labels(), y)


def test_a_generator_of_batches_of_dicts_and_tuples() -> None:
    x, y = _pair()
    as_dicts = Data(({"a": p, "b": 2 * p}, q) for p, q in zip(x.split(4), y.split(4), strict=True))
    as_tuples = Data(((p, 2 * p), q) for p, q in zip(x.split(4), y.split(4), strict=True))
    assert torch.equal(as_dicts.batch([8, 1]).x["b"], 2 * x[[8, 1]])
    assert torch.equal(as_tuples.batch([8, 1]).x[1], 2 * x[[8, 1]])


def test_a_dataset_of_lists_gives_a_tuple_of_positional_inputs() -> None:
    x, y = _pair()
    data = Data(Items())
    part = data.batch([3, 0, 9])
    assert isinstance(part.x, tuple)
    assert torch.equal(part.x[0], x[[3, 0, 9]])
    assert torch.equal(call_model(lambda a, b: b - a, part.x), x[[3, 0, 9]])
    assert torch.equal(data.labels(), y)


def test_dict_inputs_are_keyword_arguments() -> None:
    x, y = _pair()
    data = Data(({"left": x, "right": x + 1}, y))
    part = data.batch([2, 4])
    assert torch.equal(call_model(lambda right, left: right - left, part.x), torch.ones(2, 3))
    moved = move({"left": x, "mask": y}, torch.device("cpu"), torch.float64)
    assert moved["left"].dtype == torch.float64
    assert moved["mask"].dtype == torch.int64


@pytest.mark.parametrize("index", [[4, 5, 6], [6, 4, 5], [0], [10, 0], [3, 3]])
def test_any_index_in_any_order(index: list[int]) -> None:
    x, y = _pair()
    for source in ((x, y), TensorDataset(x, y), Subset(TensorDataset(x, y), list(range(N)))):
        part = Data(source).batch(index)
        assert part.index.tolist() == index
        assert torch.equal(part.x, x[index])
        assert torch.equal(part.y, y[index])
    assert torch.equal(take((x, {"k": y}), index)[1]["k"], y[index])


def test_batches_of_some_examples_keep_the_given_order() -> None:
    x, y = _pair()
    index = torch.tensor([9, 1, 4, 4, 0])
    parts = list(Data((x, y)).batches(2, index))
    assert torch.equal(torch.cat([p.index for p in parts]), index)
    assert torch.equal(torch.cat([p.x for p in parts]), x[index])


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int8, torch.int16, torch.int32])
def test_narrow_integer_labels_become_indices(dtype: torch.dtype) -> None:
    x, y = _pair()
    data = Data((x, y.to(dtype)))
    assert data.batch([1, 3]).y.dtype == torch.int64
    assert torch.equal(data.labels(), y)


def test_data_of_data_share_the_source() -> None:
    x, y = _pair()
    inner = Data((x, y), "inner")
    outer = Data(inner, "outer")
    assert outer.name == "outer"
    assert torch.equal(outer.batch([5]).x, inner.batch([5]).x)


def test_inputs_and_labels_of_different_number_are_refused() -> None:
    x, y = _pair()
    with pytest.raises(DataError, match="11 inputs for 10 labels"):
        Data((x, y[:-1]), "training data")
    with pytest.raises(DataError, match="9 inputs for 11 labels"):
        Data(((x, x[:9]), y))
